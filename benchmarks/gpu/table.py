"""All steps against the targets, as one Markdown table; the exit code is 1 when a target is missed or not measured.

    python -m benchmarks.gpu.table OUT

OUT holds what `acceptance.sh` wrote: STEP.json, STEP.exit (its exit code) and STEP.log. A step that failed, was stopped
or did not run has a line that says so.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.step import GIB, last_line

STEPS = (
    *("peak", "decoders", "bundles-base", "scoring", "bundles-1.5b", "scoring-1.5b", "placement", "bundles-tiny"),
    *("parity", "training", "memory-scoring", "decoders-large", "memory-training", "bundles-3b", "bundles-8b"),
    "memory-scoring-large",
)
"""In the order in which `acceptance.sh` runs them."""
TIMES_FASTER = 6.0
"""rows a second, than transformers in bfloat16 with the uncut decoder"""
PEAK_SHARE = 0.45
"""of the card's fp16 matrix peak, on the 1.5B shape"""
MEMORY_FACTOR = 1.3
"""times weights plus activations of the token budget"""
PARITY = 0.05
"""points"""
BOUNDED = ("fp16", "fp32")
"""Precisions in which CPU and GPU compute the same numbers."""
TIME_LIMIT = (124, 137)
"""exit codes of `timeout`, of a step that ended when it was asked to and of one that did not"""
OURS = "qe-edge-fp16"
PEER = "transformers"

Results = dict[str, dict[str, Any]]
"""What the steps wrote, by step."""


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    what: str
    target: str = ""
    measured: str = ""
    met: bool | None = None
    """None for a figure without a target"""

    def __str__(self) -> str:
        verdict = {True: "yes", False: "**no**", None: ""}[self.met]
        cells = (cell.replace("|", "\\|") for cell in (self.what, self.target, self.measured, verdict))
        return f"| {' | '.join(cells)} |"


def speed(results: Results) -> Iterator[Line]:
    """Rows a second against transformers."""
    ratio = results["scoring"]["ways"][PEER]["qe_edge_is_faster"]
    yield Line(
        "rows/s of qe-edge fp16 against transformers bf16, uncut",
        f"at least {TIMES_FASTER:g} times",
        f"{ratio:.2f} times",
        ratio >= TIMES_FASTER,
    )


def peak_share(results: Results) -> Iterator[Line]:
    """Share of the card's peak on the 1.5B shape, rows in, scores out."""
    ours, peak = results["scoring-1.5b"]["ways"][OURS], results["peak"]["fp16_operations_per_second"]
    share = ours["operations_per_second"] / peak
    yield Line(
        "linear layers of the 1.5B shape, share of the fp16 peak",
        f"at least {PEAK_SHARE:.0%}",
        f"{share:.1%}; the graph alone {ours['graph_operations_per_second'] / peak:.1%} of {peak / 1e12:.0f} TFLOP/s",
        share >= PEAK_SHARE,
    )


def scoring_memory(results: Results) -> Iterator[Line]:
    """Memory beyond CUDA's own, without a limit."""
    for case in results["memory-scoring"]["cases"]:
        if case["card_gib"] is None and case.get("fits") and case["name"].endswith("fp16"):
            needed = case["weight_bytes"] + case["activation_bytes"]
            factor = case["held_bytes"] / needed
            yield Line(
                f"peak memory of scoring, {case['name']}",
                f"at most {MEMORY_FACTOR:g} times weights and activations",
                f"{case['held_bytes'] / GIB:.2f} GiB, {factor:.2f} times",
                factor <= MEMORY_FACTOR,
            )


def training_speed(results: Results) -> Iterator[Line]:
    """Tokens a second of both loops, setting by setting."""
    cases = {(c["loop"], c["shape"], c["checkpointing"], c["paged"]): c for c in results["training"]["cases"]}
    for (loop, *setting), ours in cases.items():
        plain = cases.get(("plain", *setting))
        if loop != "qe-edge" or plain is None:
            continue
        shape, checkpointing, paged = setting
        ratio = ours["tokens_per_second"] / plain["tokens_per_second"]
        options = f"{'with' if checkpointing else 'without'} checkpointing, {'paged' if paged else 'torch'} AdamW"
        memory = " and ".join(f"{one['peak_bytes'] / GIB:.2f}" for one in (ours, plain))
        yield Line(
            f"QLoRA of {shape}, {options}: tokens/s against the plain loop",
            "at least 1 times",
            f"{ours['tokens_per_second']:.0f} and {plain['tokens_per_second']:.0f}, {ratio:.2f} times; {memory} GiB",
            ratio >= 1,
        )


def on_cpu(results: Results) -> Iterator[Line]:
    """Nodes that fell back to the CPU."""
    for name, found in results["placement"]["bundles"].items():
        nodes = ", ".join(found["on_cpu_nodes"][:3])
        yield Line(f"nodes on the CPU, {name}", "none", f"{found['on_cpu']} {nodes}".strip(), found["on_cpu"] == 0)


def parity(results: Results) -> Iterator[Line]:
    """Largest differences between CPU and GPU, and between batches, in points."""
    for name, found in results["parity"]["bundles"].items():
        kinds = [one for one in found.values() if isinstance(one, dict)]
        device, batch = (max(one[key] for one in kinds) for key in ("cpu_and_device", "batch_and_order"))
        bounded = name.rpartition("/")[2] in BOUNDED
        yield Line(
            f"scores of {name}: CPU and GPU; batch and order",
            f"at most {PARITY:g} points" if bounded else "",
            f"{device:.4f}; {batch:.4f}",
            max(device, batch) <= PARITY if bounded else None,
        )


TARGETS: dict[str, tuple[tuple[str, ...], Callable[[Results], Iterator[Line]]]] = {
    "rows/s against transformers bf16, uncut": (("scoring",), speed),
    "share of the fp16 peak on the 1.5B shape": (("scoring-1.5b", "peak"), peak_share),
    "peak memory of scoring": (("memory-scoring",), scoring_memory),
    "QLoRA tokens/s against the plain loop": (("training",), training_speed),
    "nodes on the CPU": (("placement",), on_cpu),
    "scores on CPU and GPU": (("parity",), parity),
}
"""What is to be reached, the steps that it is read from, and how."""


def ways(results: Results) -> Iterator[Line]:
    """Rows a second of every way."""
    for step in ("scoring", "scoring-1.5b"):
        for way, found in results.get(step, {}).get("ways", {}).items():
            budget = f", {found['token_budget']} tokens a batch" if "token_budget" in found else ""
            yield Line(f"{step}: {way}", "", f"{found['rows_per_second']:.0f} rows/s{budget}")


def cards(results: Results) -> Iterator[Line]:
    """What fits into small cards."""
    for step in ("memory-scoring", "memory-scoring-large", "memory-training"):
        for case in results.get(step, {}).get("cases", ()):
            if case["card_gib"] is None:
                continue
            if case.get("fits") and "case" in case:
                said = f"{case['tokens_per_second']:.0f} tokens/s, {case['peak_bytes'] / GIB:.2f} GiB ({case['case']})"
            elif case.get("fits"):
                said = f"{case['rows_per_second']:.0f} rows/s, {case['held_bytes'] / GIB:.2f} GiB"
            else:
                said = f"does not fit: {case['reason']}" if "reason" in case else f"failed: {case['failure']}"
            yield Line(f"{step}: {case['name']} on a card of {case['card_gib']:g} GiB", "", said)


def read(folder: Path) -> tuple[Results, dict[str, str]]:
    """What the steps wrote, and why the others, or parts of them, are missing."""
    results: Results = {}
    faults: dict[str, str] = {}
    for step in STEPS:
        written, code_file, log = (folder / f"{step}.{suffix}" for suffix in ("json", "exit", "log"))
        if written.is_file():
            results[step] = json.loads(written.read_text(encoding="utf-8"))
        if not code_file.is_file():
            faults[step] = "did not run"
        elif (code := int(code_file.read_text(encoding="utf-8"))) in TIME_LIMIT:
            faults[step] = "stopped at its time limit"
        elif code:
            reason = last_line(log.read_text(encoding="utf-8")) if log.is_file() else "no message"
            faults[step] = f"failed with exit code {code}: {reason}"
    return results, faults


def target_lines(results: Results) -> Iterator[Line]:
    """A line for every target at least, also for those that nothing was measured for. A rehearsal meets none."""
    for name, (steps, check) in TARGETS.items():
        missing = [step for step in steps if step not in results]
        if missing:
            yield Line(name, "", f"not measured: no {' and no '.join(missing)}", False)
            continue
        try:
            found = list(check(results))
        except KeyError as error:  # what a step that was stopped has not come to
            yield Line(name, "", f"not measured: {', '.join(steps)} has no {error}", False)
            continue
        if any(results[step].get("device") == "cpu" for step in steps):
            found = [replace(line, measured=f"{line.measured} (rehearsed on a CPU)", met=False) for line in found]
        yield from found or [Line(name, "", f"not measured: nothing in {', '.join(steps)}", False)]


def table(results: Results, faults: dict[str, str]) -> tuple[str, bool]:
    """The Markdown, and whether every target is met."""
    targets = list(target_lines(results))
    failed = [Line(f"step {step}", "", fault) for step, fault in faults.items()]
    lines = [*targets, *failed, *ways(results), *cards(results)]
    head = ["| | target | measured | met |", "|---|---|---|---|"]
    return "\n".join([*head, *map(str, lines)]), all(line.met is not False for line in targets)


def main() -> None:
    options_of = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options_of.add_argument("folder", type=Path, metavar="OUT")
    options = options_of.parse_args()
    if not options.folder.is_dir():
        options_of.error(f"{options.folder}: no such folder; give the one that acceptance.sh wrote")
    results, faults = read(options.folder)
    peak = results.get("peak", {})
    print(f"{peak.get('name', 'card unknown')}, driver {peak.get('driver_version', 'unknown')}\n")
    text, met = table(results, faults)
    print(text)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
