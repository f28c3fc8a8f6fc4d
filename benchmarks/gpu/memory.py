"""What fits into small cards: scoring and training of every shape within the memory of cards of 4 to 12 GB.

    python -m benchmarks.gpu.memory scoring -o memory-scoring.json
    python -m benchmarks.gpu.memory training -o memory-training.json

On a large card the memory of a small one is a limit that is enforced: on torch's allocator for training, on ONNX
Runtime's for scoring. CONTEXT of a card's memory goes to CUDA itself and is left out of the limit. "does not fit" is an
out-of-memory error that was raised. Paged optimiser states lie in managed memory, on which torch's limit has no hold.
Every case is a process of its own.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from benchmarks.gpu.decoders import activation_bytes, decoder_folder
from benchmarks.gpu.rows import TINY_ROWS, rows_of_test20
from benchmarks.gpu.step import (
    GIB,
    bundle_folder,
    finish,
    last_line,
    made_bundle,
    measured_apart,
    parser,
    run,
    say,
    used_memory,
    write,
)
from qe_edge import Scorer
from qe_edge.bundle import WEIGHTS_FILE
from qe_edge.rows import Row

CARDS = (4, 6, 8, 12)
"""GiB of memory"""
CONTEXT = 0.6
"""GiB that CUDA and its libraries take of a card"""
SHAPES = ("1.5b", "base", "3b", "8b")
PRECISIONS = ("fp16", "int4")
ROWS = 100
"""of each of the seven pairs"""
ATTEMPTS = ((16, False), (4, False), (4, True), (1, True))
"""Rows of a batch, and whether activations are recomputed: the first that fits is what a card can do."""


def limit_of(card: float) -> int:
    """Bytes that a process may take of a card of so many GiB."""
    return int((card - CONTEXT) * GIB)


def score_within(options: Namespace, shape: str, precision: str, card: float | None) -> dict[str, Any]:
    """Score rows with ONNX Runtime held to a card's memory (None: all there is)."""
    bundle = made_bundle(options, shape, precision)
    rows = rows_of_test20(options.data, TINY_ROWS if options.tiny else ROWS)
    gpu = options.device == "cuda"
    limit: dict[str, Any] = {} if card is None else {"gpu_mem_limit": limit_of(card)}
    before = used_memory() if gpu else 0
    context = context_bytes(before) if gpu else 0
    try:
        scorer = Scorer.load(bundle, device=options.device, **limit)
        list(scorer.score([backwards(row) for row in rows]))
        started = time.perf_counter()
        scores = list(scorer.score(rows))
        seconds = time.perf_counter() - started
    except MemoryError as error:
        return {"fits": False, "reason": last_line(str(error))}
    missing = [score.reason for score in scores if score.value is None]
    if missing:
        return {"fits": False, "reason": missing[0]}
    return {
        "fits": True,
        "rows_per_second": len(rows) / seconds,
        "held_bytes": used_memory() - before - context if gpu else 0,
        "context_bytes": context,
        "weight_bytes": (bundle / WEIGHTS_FILE).stat().st_size,
        "activation_bytes": activation_bytes(decoder_folder(options, shape), scorer.engine.token_budget),
    }


def context_bytes(before: int) -> int:
    """What CUDA itself takes of the card in this process, which shares it between torch and ONNX Runtime."""
    import torch

    torch.zeros(1, device="cuda")
    return used_memory() - before


def backwards(row: Row) -> Row:
    """Another row of the same length, to warm up on: a scorer runs a row only once."""
    return replace(row, texts=tuple(text[::-1] for text in row.texts))


def train_within(options: Namespace, shape: str, card: float | None) -> dict[str, Any]:
    """Train a few steps with torch held to a card's memory, with the largest of ATTEMPTS that fits."""
    import torch

    from benchmarks.gpu.qe_edge_training import train
    from benchmarks.gpu.step import torch_device
    from benchmarks.gpu.training_case import Case

    device = torch_device(options.device)
    gpu = device.type == "cuda"
    if card is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(limit_of(card) / total, 1.0))
    reasons: dict[str, str] = {}
    for batch, checkpointing in ATTEMPTS:
        case = Case("qe-edge", shape, batch, checkpointing, paged=gpu, warm_up=1, steps=4)
        try:
            return {"fits": True, "case": case.name, **asdict(train(options, case, device)), "before": reasons}
        except torch.OutOfMemoryError as error:
            reasons[case.name] = str(error).splitlines()[0]
        gc.collect()
        if gpu:
            torch.cuda.empty_cache()
    return {"fits": False, "reason": list(reasons.values())[-1], "before": reasons}


def cases(options: Namespace) -> Iterator[tuple[str, float | None]]:
    """What is measured, by name, on which card: without a limit, then from the smallest card to the largest."""
    for shape in options.shapes:
        names = [shape] if options.what == "training" else [f"{shape}/{precision}" for precision in PRECISIONS]
        for name in names:
            if options.what == "scoring" and not bundle_folder(options, *name.split("/")).is_dir():
                say(f"{name}: no such bundle, left out")
                continue
            # nothing holds a process on a CPU to the memory of a card
            for card in (None, *options.cards) if options.device == "cuda" else (None,):
                yield name, card


def measure(options: Namespace, name: str, card: float | None) -> dict[str, Any]:
    """One case in this process."""
    if options.what == "training":
        return train_within(options, name, card)
    shape, _, precision = name.partition("/")
    return score_within(options, shape, precision, card)


def main() -> None:
    options_of = parser(__doc__)
    options_of.add_argument("what", choices=("scoring", "training"))
    options_of.add_argument("--shapes", nargs="+", default=SHAPES)
    options_of.add_argument("--cards", nargs="+", type=float, default=CARDS, help="GiB (default 4 6 8 12)")
    options_of.add_argument("--case", type=json.loads, help="one case, as JSON; used by the step itself")
    options = options_of.parse_args()
    if options.case:
        print(json.dumps(measure(options, *options.case)))
        return
    found: list[dict[str, Any]] = []
    result = {"device": options.device, "what": options.what, "cases": found}
    for name, card in cases(options):
        try:
            figures = measured_apart(options, "memory", options.what, "--case", json.dumps([name, card]))
            said = "fits" if figures["fits"] else "does not fit"
        except RuntimeError as error:  # any other end than for want of memory
            figures = {"failure": str(error)}
            said = str(error)
        found.append({"name": name, "card_gib": card, **figures})
        say(f"{options.what} {name}, {'no limit' if card is None else f'{card:g} GiB'}: {said}")
        write(options, result)
    finish(options, result)
    if failed := [one for one in found if "failure" in one]:
        sys.exit(f"{len(failed)} cases failed: {failed[0]['failure']}")


if __name__ == "__main__":
    run(main)
