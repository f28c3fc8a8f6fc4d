"""docs/performance.md from what `performance.sh` measured: every figure of the page is one of its JSON files.

    python -m benchmarks.page machine FOLDER      # writes FOLDER/machine.json: what this machine is, before measuring
    python -m benchmarks.page write FOLDER PAGE   # fills benchmarks/page.md

The text is a format string: `{bench[rows_per_second]:.1f}` is that value of FOLDER/bench.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
from pathlib import Path
from typing import Any

TEXT = Path(__file__).with_name("page.md")
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
KEPT = 0.6
"""A centred error of the state below this leaves what tells rows apart (benchmarks/peers/README.md)."""


class Figure(float):
    """A number in the way this project writes it: .5 instead of 0.5, 50 % instead of 50%."""

    def __format__(self, spec: str) -> str:
        written = super().__format__(spec)
        if written.endswith("%"):
            return f"{written[:-1]} %"
        return written.replace("0.", ".", 1) if written.startswith(("0.", "-0.")) else written


def machine() -> dict[str, Any]:
    """Name, family, cores and instructions of this machine's processor, as /proc/cpuinfo gives them, and the day."""
    lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines())
    told = {name.strip(): value.strip() for name, _, value in lines}
    flags = told["flags"].split()
    return {
        "processor": told["model name"],
        "family": int(told["cpu family"]),
        "model": int(told["model"]),
        "cores": os.cpu_count(),
        "instructions": [name for flag, name in INSTRUCTIONS.items() if flag in flags],
        "day": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }


def read(folder: Path) -> dict[str, Any]:
    """Everything measured, by the names of its files, with what the page derives from it."""
    found = {
        name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"), parse_float=Figure)
        for name in (*MEASURED, *COMPARED)
    }
    found["machine"]["instructions"] = ", ".join(found["machine"]["instructions"])
    found["operators"] = operators(found["bench"]["operators"])
    found["headline"] = headline(found["peers-1000"])
    found["rounds"] = {
        entry["name"]: ", ".join(f"{Figure(found['peers-1000']['rows'] / seconds):.1f}" for seconds in rounds)
        for entry in found["peers-1000"]["results"]
        if (rounds := entry["seconds_of_rounds"])
    }
    found["others"] = others(found["peers"])
    found["workers"] = {
        name: " | ".join(f"{speed:.0f}" for speed in found["batches"]["tokens_per_second"][ways].values())
        for name, ways in (("one", "one batch on 2 cores"), ("each", "a batch on each core"))
    }
    found["int8"] = {
        "reached": Figure(found["bench"]["int8_operations"] / 1e12),
        "peak": Figure(found["bench"]["int8_peak"] / 1e12),
    }
    found["largest_movement"] = Figure(max(found["invariance"].values()))
    return found


def operators(measured: list[dict[str, Any]]) -> dict[str, Figure]:
    """The share of each operator in a worker's time; `rest` is what the page does not name."""
    whole = sum(entry["seconds"] for entry in measured)
    named = ("GatedQuantize", "LinearAddNormQuantize", "Linear", "AttendQuantize")
    shares = {entry["name"]: Figure(entry["seconds"] / whole) for entry in measured if entry["name"] in named}
    return shares | {"rest": Figure(1 - sum(shares.values()))}


def headline(compared: dict[str, Any]) -> dict[str, Any]:
    """The three rows of the comparison with torch, and how many times as fast scorer and command are."""
    by_name = {entry["name"]: entry for entry in compared["results"]}
    torch = by_name["torch bf16-uncut-sorted"]
    scorer, command = by_name["qe-edge scorer"], by_name["qe-edge command"]
    times = {
        name: Figure(entry["rows_per_second"] / torch["rows_per_second"])
        for name, entry in (("scorer_times", scorer), ("command_times", command))
    }
    return {"scorer": scorer, "command": command, "torch": torch, **times}


def others(compared: dict[str, Any]) -> dict[str, Any]:
    """The table of peers, the fastest first, and what the page says of them."""
    by_name = {entry["name"]: entry for entry in compared["results"]}
    scorer, states = by_name["qe-edge scorer"], by_name["qe-edge states"]
    peers = [entry for name, entry in by_name.items() if not name.startswith("qe-edge")]
    peers.sort(key=lambda entry: -float(entry["rows_per_second"]))
    faster = [entry["name"] for entry in peers if entry["rows_per_second"] >= scorer["rows_per_second"]]
    kept = [entry for entry in peers if entry["centred_error"] is not None and entry["centred_error"] < KEPT]
    lines = [peer_line("`qe_edge.Scorer`", scorer, states, None)]
    lines += [peer_line(entry["name"], entry, entry, scorer) for entry in peers]
    return {
        "rows": compared["rows"],
        "rounds": compared["rounds"],
        "table": "\n".join(lines),
        "faster": ", ".join(faster) or "none",
        "nearest": peers[0],
        "nearest_times": Figure(scorer["rows_per_second"] / peers[0]["rows_per_second"]),
        "kept": kept[0],
        "kept_times": Figure(scorer["rows_per_second"] / kept[0]["rows_per_second"]),
        "states": states,
        "failures": ", ".join(compared["failures"]) or "none",
    }


def peer_line(name: str, entry: dict[str, Any], states: dict[str, Any], scorer: dict[str, Any] | None) -> str:
    """One row of the table; `states` holds the errors, `scorer` what it is compared with."""
    times = f"{Figure(scorer['rows_per_second'] / entry['rows_per_second']):.1f}" if scorer else ""
    decimals = zip((states["error"], states["centred_error"]), (3, 2), strict=True)
    error, centred = ("" if value is None else f"{Figure(value):.{n}f}" for value, n in decimals)
    cells = [name, f"{entry['rows_per_second']:.1f}", times, f"{entry['peak_rss_mib']:.0f}", error, centred]
    return f"| {' | '.join(cells)} |"


def page(folder: Path) -> str:
    """The page of what `folder` holds. Raises OSError and KeyError where a part has not been measured."""
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
    else:
        arguments.page.write_text(page(arguments.folder), encoding="utf-8")


if __name__ == "__main__":
    main()
