"""The same bundle on CPU and on CUDA: largest difference of a score, and whether scores depend on batch or order.

    python -m benchmarks.gpu.parity base/fp16 tiny/fp32 -o parity.json

Bodies of real tokens, from one token to the token limit, run after a language pair's prefix and after nothing; alone,
in batches of a few and of all, sorted and shuffled. Differences are in points: hundredths of the range of the human
scores. With integer weights (int8, int4) a CPU quantises the activations, too, and a GPU does not: their difference is
shown and has no bound.
"""

from __future__ import annotations

import random
from argparse import Namespace
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.placement import key_value_shape
from benchmarks.gpu.rows import TINY_ROWS, body_tokens, rows_of_test20
from benchmarks.gpu.step import finish, made_bundle, parser, run, say, write
from qe_edge.bundle import Bundle, open_bundle
from qe_edge.scoring.graph import Graph, Past
from qe_edge.scoring.machine import physical_cores

BUNDLES = tuple(f"{shape}/{precision}" for shape in ("base", "tiny") for precision in ("fp16", "fp32", "int4", "int8"))
LENGTHS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 200, 255, 256, 257, 400)
COPIES = 3
"""bodies of every length, with different tokens"""
BATCHES = (1, 5, 16)
"""rows of a batch, beside all at once"""
REFERENCE_BATCH = 16


def bodies_of_all_lengths(tokens: Sequence[int], most: int) -> list[list[int]]:
    """Bodies cut from a stream of tokens: COPIES of every length up to `most`, `most` itself included."""
    lengths = sorted({length for length in (*LENGTHS, most) if length <= most}) * COPIES
    long_enough = list(tokens) * -(-most // len(tokens))
    starts = random.Random(1)
    begins = [starts.randrange(len(long_enough) - length + 1) for length in lengths]
    return [long_enough[begin : begin + length] for begin, length in zip(begins, lengths, strict=True)]


def scores(graph: Graph, past: Past, bodies: Sequence[list[int]], batch: int, order: Sequence[int]) -> NDArray[Any]:
    """Scores [n] in the order of the bodies, run in batches as `order` has it."""
    found = np.empty(len(bodies))
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        found[list(chosen)] = graph.scores(past, [bodies[i] for i in chosen])
    return found


def differences(bundle: Bundle, options: Namespace) -> dict[str, Any]:
    """Of one bundle, in points."""
    rows = [row for row in rows_of_test20(options.data, 40) if row.pair == "ne-en"]
    prefix, real = body_tokens(bundle, rows)
    shape, point = key_value_shape(bundle), bundle.spec.gate["point"]
    on_cpu = Graph(bundle.model, shape, "cpu", threads=physical_cores())
    on_device = Graph(bundle.model, shape, options.device, threads=physical_cores())
    stream = list(chain.from_iterable(real[:TINY_ROWS] if options.tiny else real))
    found: dict[str, Any] = {"point": point}
    for name, before in (("after a prefix", prefix), ("whole prompts", [])):
        bodies = bodies_of_all_lengths(stream, bundle.spec.token_limit - len(before))
        by_length = sorted(range(len(bodies)), key=lambda i: len(bodies[i]))
        shuffled = random.Random(2).sample(by_length, len(by_length))
        reference = scores(on_cpu, on_cpu.prefix(before), bodies, REFERENCE_BATCH, by_length)
        past = on_device.prefix(before)
        runs = [
            scores(on_device, past, bodies, batch, order)
            for batch in (*BATCHES, len(bodies))
            for order in ((by_length, shuffled) if batch > 1 else (by_length,))
        ]
        every = np.stack(runs)
        if not np.isfinite(every).all():
            raise ValueError(f"{bundle.folder}: scores that are not finite numbers")
        found[name] = {
            "rows": len(bodies),
            "cpu_and_device": float(np.abs(every - reference).max() / point),
            "batch_and_order": float(np.ptp(every, axis=0).max() / point),
        }
    return found


def main() -> None:
    options_of = parser(__doc__)
    options_of.add_argument("bundles", nargs="*", default=BUNDLES, metavar="SHAPE/PRECISION", help="bundles to compare")
    options = options_of.parse_args()
    found: dict[str, Any] = {}
    result = {"device": options.device, "bundles": found}
    for name in options.bundles:
        shape, _, precision = name.partition("/")
        found[name] = differences(open_bundle(made_bundle(options, shape, precision)), options)
        say(f"{name}: {found[name]}")
        write(options, result)
    finish(options, result)


if __name__ == "__main__":
    run(main)
