"""docs/performance.md from what `performance.sh` measured: every figure of the page is one of its JSON files.

    python -m benchmarks.page machine FOLDER      # writes FOLDER/machine.json: what this machine is, before measuring
    python -m benchmarks.page write FOLDER PAGE   # fills benchmarks/performance.md.in

The text is a format string: `{bench[rows_per_second]:.1f}` is that value of FOLDER/bench.json. What differs between
machines - operators, peers, which of them are faster - is written by the functions below.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
from pathlib import Path
from typing import Any

from qe_edge.scoring.machine import CPU_FACTS, physical_cores

TEXT = Path(__file__).with_name("performance.md.in")
MEASURED = ("machine", "bench", "batches", "shared_sources", "kernels", "invariance", "whole_command")
COMPARED = ("peers-1000", "peers")
INSTRUCTIONS = {
    "amx_int8": "AMX",
    "avx512_vnni": "AVX512-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
}
"""Names of Linux for what the kernels can use, the strongest first."""
OPERATORS = {
    "GatedQuantize": "int8 products of gate and up, their gate and its rounding",
    "LinearAddNormQuantize": "int8 products of output and down, residual, norm, rounding",
    "Linear": "int8 products of queries, keys and values",
    "AttendQuantize": "positions, attention, rounding",
}
"""What the operators do that are worth a line; without kernels they have other names."""
WORTH_A_LINE = 0.03
KEPT = 0.6
"""A centred error of the state below this leaves what tells rows apart (benchmarks/peers/README.md)."""
HEADLINE = ("qe-edge scorer", "qe-edge command", "torch bf16-uncut-sorted")


class Figure(float):
    """A number in the way this project writes it: .5 instead of 0.5, 50 % instead of 50%."""

    def __format__(self, spec: str) -> str:
        written = super().__format__(spec)
        if written.startswith(("0.", "-0.")):
            written = written.replace("0.", ".", 1)
        return f"{written[:-1]} %" if written.endswith("%") else written


def machine() -> dict[str, Any]:
    """Processor, cores and instructions of this machine, as far as the system tells, and the day."""
    lines = CPU_FACTS.read_text(encoding="utf-8", errors="replace").splitlines() if CPU_FACTS.exists() else []
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    details = [f"{name.removeprefix('cpu ')} {told[name]}" for name in ("cpu family", "model") if name in told]
    flags = told.get("flags", "").split()
    return {
        "processor": told.get("model name", platform.machine()),
        "details": details + [name for flag, name in INSTRUCTIONS.items() if flag in flags],
        "cores": physical_cores(),
        "day": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }


def read(folder: Path) -> dict[str, Any]:
    """Everything measured, by the names of its files, with what the page derives from it."""
    found = {
        name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"), parse_float=Figure)
        for name in (*MEASURED, *COMPARED)
    }
    bench = found["bench"]
    return found | {
        "details": ", ".join(found["machine"]["details"]),
        "batches_table": batches(found["batches"]["tokens_per_second"]),
        "operators_table": operators(bench["operators"]),
        "int8": {"reached": Figure(bench["int8_operations"] / 1e12), "peak": Figure(bench["int8_peak"] / 1e12)},
        "moved": moved(found["invariance"].values()),
        "shared_moved": moved([found["shared_sources"]["largest_movement_points"]]),
        "headline": headline(found["peers-1000"]),
        "others": others(found["peers"]),
    }


def table(*rows: list[str]) -> str:
    """A table in Markdown, the first row its head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def batches(speeds: dict[str, dict[str, float]]) -> str:
    """Tokens per second by ways to batch and budgets."""
    budgets = list(next(iter(speeds.values())))
    rows = [[way, *(f"{speed:.0f}" for speed in found.values())] for way, found in speeds.items()]
    return table(["padded tokens a batch", *budgets], *rows)


def operators(measured: list[dict[str, Any]]) -> str:
    """The share of each operator in a worker's time, as far as it is worth a line, and of all others together."""
    whole = sum(entry["seconds"] for entry in measured)
    shares = {entry["name"]: Figure(entry["seconds"] / whole) for entry in measured}
    shares = {name: share for name, share in shares.items() if share >= WORTH_A_LINE}
    rows = [[f"`{name}`", f"{share:.1%}", OPERATORS.get(name, "")] for name, share in shares.items()]
    rest = Figure(1 - sum(shares.values()))
    return table(
        ["operator", "share", "what it does"], *rows, ["embedding, the last block, all else", f"{rest:.1%}", ""]
    )


def moved(movements: Any) -> str:
    """What the page says of how far scores move at most, in points of 100."""
    largest = Figure(max(movements))
    return f"scores move by up to {largest:.4f} points of 100" if largest else "no score moves by anything"


def headline(compared: dict[str, Any]) -> dict[str, Any]:
    """The comparison with torch. Raises LookupError when one of the three was not measured."""
    by_name = {entry["name"]: entry for entry in compared["results"]}
    lacking = [name for name in HEADLINE if name not in by_name]
    if lacking:
        raise LookupError(f"peers-1000.json has no {', '.join(lacking)}; see what the comparison printed")
    scorer, command, torch = (by_name[name] for name in HEADLINE)
    return {
        "scorer": scorer,
        "command": command,
        "torch": torch,
        "scorer_times": Figure(scorer["rows_per_second"] / torch["rows_per_second"]),
        "command_times": Figure(command["rows_per_second"] / torch["rows_per_second"]),
        "scorer_rounds": rounds(scorer, compared["rows"]),
        "torch_rounds": rounds(torch, compared["rows"]),
    }


def rounds(entry: dict[str, Any], rows: int) -> str:
    """Rows per second of every round."""
    return ", ".join(f"{Figure(rows / seconds):.1f}" for seconds in entry["seconds_of_rounds"])


def others(compared: dict[str, Any]) -> dict[str, Any]:
    """The table of peers, the fastest first, and what the page says of them."""
    by_name = {entry["name"]: entry for entry in compared["results"]}
    scorer, states = by_name["qe-edge scorer"], by_name["qe-edge states"]
    peers = [entry for name, entry in by_name.items() if not name.startswith("qe-edge")]
    peers.sort(key=lambda entry: -float(entry["rows_per_second"]))
    faster = [entry["name"] for entry in peers if entry["rows_per_second"] >= scorer["rows_per_second"]]
    kept = [entry for entry in peers if entry["centred_error"] is not None and entry["centred_error"] < KEPT]
    lost = [entry["name"] for entry in peers if entry["centred_error"] is not None and entry["centred_error"] >= KEPT]
    head = ["", "rows/s", "the scorer is faster by", "peak memory, MiB", "error of the state", "centred"]
    rows = [peer_cells("`qe_edge.Scorer`", scorer, states, None)]
    rows += [peer_cells(entry["name"], entry, entry, scorer) for entry in peers]
    return {
        "rows": compared["rows"],
        "rounds": compared["rounds"],
        "threads": compared["threads"],
        "table": table(head, *rows),
        "faster": ", ".join(faster) or "none",
        "failed": ", ".join(compared["failures"]) or "none",
        "lost": ", ".join(lost) or "none",
        "nearest": nearest(peers, scorer),
        "nearest_kept": nearest(kept, scorer),
        "states": states,
    }


def nearest(peers: list[dict[str, Any]], scorer: dict[str, Any]) -> str:
    """The fastest peer, with how many times as fast as it the scorer is."""
    if not peers:
        return "none"
    times = Figure(scorer["rows_per_second"] / peers[0]["rows_per_second"])
    return f"{peers[0]['name']} (the scorer is {times:.1f} times as fast)"


def peer_cells(name: str, entry: dict[str, Any], states: dict[str, Any], scorer: dict[str, Any] | None) -> list[str]:
    """One row of the table of peers; `states` holds the errors, `scorer` what it is compared with."""
    times = f"{Figure(scorer['rows_per_second'] / entry['rows_per_second']):.1f}" if scorer else ""
    decimals = zip((states["error"], states["centred_error"]), (3, 2), strict=True)
    errors = ["" if value is None else f"{Figure(value):.{n}f}" for value, n in decimals]
    return [name, f"{entry['rows_per_second']:.1f}", times, f"{entry['peak_rss_mib']:.0f}", *errors]


def page(folder: Path) -> str:
    """The page of what `folder` holds. Raises OSError and LookupError where a part has not been measured."""
    return TEXT.read_text(encoding="utf-8").format_map(read(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    for part in ("machine", "write"):
        parts.add_parser(part).add_argument("folder", type=Path)
    parts.choices["write"].add_argument("page", type=Path)
    arguments = parser.parse_args()
    if arguments.part == "machine":
        (arguments.folder / "machine.json").write_text(json.dumps(machine(), indent=2) + "\n", encoding="utf-8")
        return
    try:
        arguments.page.write_text(page(arguments.folder), encoding="utf-8")
    except (OSError, LookupError) as error:
        sys.exit(f"{arguments.page} is not written: {error}")


if __name__ == "__main__":
    main()
