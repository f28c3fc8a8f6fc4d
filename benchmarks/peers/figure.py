"""Rows per second of qe-edge and its peers as horizontal bars, from what `compare.py` wrote.

python -m benchmarks.peers.figure docs/performance/peers.json -o docs/performance/peers
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from qe_edge_train.figures import new_figure, save_figure

OURS, PEER = "#1b6ca8", "#b8bec6"


def draw(found: dict[str, Any], stem: Path) -> list[Path]:
    """Write STEM.png and STEM.svg: one bar a variant, the fastest on top; `states` is not timed."""
    entries = [entry for entry in found["results"] if entry["name"] != "qe-edge states"]
    entries.sort(key=lambda entry: float(entry["rows_per_second"]))
    speeds = [entry["rows_per_second"] for entry in entries]
    figure, axes = new_figure(8.0, 0.5 + 0.22 * len(entries))
    colours = [OURS if entry["name"].startswith("qe-edge") else PEER for entry in entries]
    bars = axes.barh([entry["name"] for entry in entries], speeds, color=colours)
    axes.bar_label(bars, [f"{speed:.1f}" for speed in speeds], padding=3, fontsize=7)
    axes.set_xlabel(
        f"rows per second, {found['rows']} et-en rows, {found['threads']} threads, {found['machine']['processor']}"
    )
    axes.tick_params(axis="y", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    return save_figure(figure, stem)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("found", type=Path, help="JSON file of compare.py")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="STEM", help="STEM.svg and STEM.png")
    arguments = parser.parse_args()
    for path in draw(json.loads(arguments.found.read_text(encoding="utf-8")), arguments.output):
        print(path)


if __name__ == "__main__":
    main()
