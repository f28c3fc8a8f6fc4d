"""QLoRA with qe-edge's loop and with a plain one: tokens a second and peak memory.

    python -m benchmarks.gpu.training -o training.json

Both loops train the same rows on the same 4-bit base with LoRA of rank 32 on all seven maps; a token counts when it is
a real one of a row's whole prompt, whether a loop runs it for every row or shares it. Every case is a process of its
own; one that fails is named with the reason.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from benchmarks.gpu import plain_training, qe_edge_training
from benchmarks.gpu.step import finish, measured_apart, parser, run, say, torch_device, write
from benchmarks.gpu.training_case import LOOPS, Case

SHAPES = ("1.5b", "base")
TRAIN = {"qe-edge": qe_edge_training.train, "plain": plain_training.train}


def cases(options: Namespace) -> Iterator[Case]:
    """All cases, those first that targets are about. A CPU has no paged memory."""
    for checkpointing, paged in ((False, True), (True, True), (False, False), (True, False)):
        for shape in options.shapes:
            for loop in LOOPS:
                case = Case(loop, shape, checkpointing=checkpointing, paged=paged)
                if options.tiny:
                    case = replace(case, batch=2, warm_up=1, steps=3)
                if not (paged and options.device == "cpu"):
                    yield case


def main() -> None:
    options_of = parser(__doc__)
    options_of.add_argument("--shapes", nargs="+", default=SHAPES, help="decoders that are trained")
    options_of.add_argument("--case", type=json.loads, help="one case, as JSON; used by the step itself")
    options = options_of.parse_args()
    if options.case:
        case = Case(**options.case)
        print(json.dumps(asdict(TRAIN[case.loop](options, case, torch_device(options.device)))))
        return
    found: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    result = {"device": options.device, "cases": found, "failures": failures}
    for case in cases(options):
        try:
            figures = measured_apart(options, "training", "--case", json.dumps(asdict(case)))
        except RuntimeError as error:
            failures[case.name] = str(error)
            say(f"{case.name}: {error}")
        else:
            found.append({**asdict(case), **figures})
            say(f"{case.name}: {figures['tokens_per_second']:.0f} tokens/s")
        write(options, result)
    finish(options, result)
    if failures:
        sys.exit(f"failed: {', '.join(failures)}")


if __name__ == "__main__":
    run(main)
