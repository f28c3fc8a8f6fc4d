"""How far scores move between the vector instructions that ONNX Runtime finds: AVX-512, AVX2, SSE4.2.

    python benchmarks/instruction_sets.py FILE.tsv --lp et-en [--rows 20] [--cpu Haswell --cpu Nehalem] [--json OUT]

ONNX Runtime chooses its kernels by the processor and has no option for it, so other processors are emulated with
`qemu-x86_64` (Debian's package qemu-user, 7.2 or later; no AVX-512), which takes minutes. The reference is this machine
without emulation.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from qe_edge import Scorer
from qe_edge.table.table import open_table

EMULATOR = "qemu-x86_64"


def scores(file: str, lp: str | None, rows: int, bundle: Path | None) -> list[float]:
    """Scores of the first rows, by the instructions that this process finds."""
    with open_table(file, lp=lp) as table:
        first = [item.row for item in islice(table.items, rows)]
    with Scorer.load(bundle, device="cpu", threads=1) as scorer:
        return [score.value for score in scorer.score(first) if score.value is not None]


def emulated(cpu: str, arguments: Sequence[str]) -> list[float]:
    """The same by a process on an emulated processor."""
    command = [EMULATOR, "-cpu", cpu, sys.executable, __file__, *arguments, "--alone"]
    # the emulator shows the real processor's abilities, and warns of what it cannot emulate
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{cpu}: {done.stderr.strip()}")
    found: list[float] = json.loads(done.stdout)
    return found


def compared(reference: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Differences in points, and in rows whose written score is another one."""
    difference = np.abs(np.array(reference) - np.array(other))
    written = [f"{a:.4f}" != f"{b:.4f}" for a, b in zip(reference, other, strict=True)]
    return {
        "largest": float(difference.max()),
        "mean": float(difference.mean()),
        "rows_written_otherwise": sum(written),
        "pearson": float(np.corrcoef(reference, other)[0, 1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--lp")
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--cpu", action="append", help="as `qemu-x86_64 -cpu help` names it; Haswell has AVX2")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--alone", action="store_true", help="only print the scores of this machine, as JSON")
    arguments = parser.parse_args()
    os.environ["QE_EDGE_KERNELS"] = "off"
    reference = scores(arguments.file, arguments.lp, arguments.rows, arguments.bundle)
    if arguments.alone:
        print(json.dumps(reference))
        return
    if shutil.which(EMULATOR) is None:
        parser.error(f"{EMULATOR} is not installed; install qemu-user")
    found = {cpu: compared(reference, emulated(cpu, sys.argv[1:])) for cpu in arguments.cpu or ("Haswell", "Nehalem")}
    print(json.dumps({"rows": len(reference), **found}, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": len(reference), **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
