"""A total shared out over the blocks: experts or ranks, at least 1 for every block, and exactly the total.

"Total" is T: experts or ranks of one linear map, summed over the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from qe_edge.errors import UsageError
from qe_edge.metrics import FloatArray

Method = Literal["alpha", "uniform", "mola", "mola_reversed"]
ROUNDING = 1e-9
"""by which a share that should be whole may miss it in floating point"""


def allocate(values: Sequence[float] | FloatArray, total: int, beta: float) -> list[int]:
    """Share `total` out in proportion to value^beta (AlphaLoRA, arXiv 2410.10054), in whole numbers.

        s_i = v_i^beta / sum_j v_j^beta * T

    A block whose share falls below 1 gets 1, and the others share the rest in the same proportion. Shares are then
    rounded down, and what is left goes one each to the largest remainders (of equal ones to the earlier block).

    values: above 0, one for every block. Raises UsageError when there is less to give than there are blocks.
    """
    if total < len(values):
        raise UsageError(f"a total of {total} cannot give each of {len(values)} blocks at least 1; raise the total")
    powers = np.asarray(values, dtype=np.float64)
    if not (np.isfinite(powers) & (powers > 0)).all():
        raise ValueError(f"values must be finite and above 0: {list(values)}")
    weights = (powers / powers.max()) ** beta
    shares = np.ones(len(values))
    settled = np.zeros(len(values), dtype=bool)  # blocks that get 1 because their share is below
    while True:
        shares[~settled] = weights[~settled] / weights[~settled].sum() * (total - settled.sum())
        low = ~settled & (shares < 1 - ROUNDING)
        if not low.any():  # at the latest when one block is left: shares not settled are 1 or more on average
            break
        settled |= low
        shares[settled] = 1
    counts = np.floor(shares + ROUNDING).astype(np.int64)
    largest = np.argsort(counts - shares, kind="stable")[: total - counts.sum()]
    counts[largest] += 1
    return [int(count) for count in counts]


def uniform(blocks: int, total: int) -> list[int]:
    """The same for every block; what does not divide goes one each to the first ones. Errors as `allocate`."""
    return allocate([1.0] * blocks, total, 1)


def mola(blocks: int, total: int, reverse: bool) -> list[int]:
    """2-4-6-8 by quarter of the depth (MoLA, arXiv 2402.08562), or 8-6-4-2, scaled to the total as `allocate` does.

    Block i of N is in quarter floor(4 i / N), so that quarters differ by at most one block where 4 does not divide N.
    """
    sizes = (8, 6, 4, 2) if reverse else (2, 4, 6, 8)
    return allocate([sizes[4 * block // blocks] for block in range(blocks)], total, 1)


def block_counts(
    method: Method, alphas: Sequence[float] | FloatArray | None, blocks: int, total: int, beta: float
) -> list[int]:
    """What each of the kept blocks gets by one method [blocks]; the sum is `total`.

    alphas: exponents of the kept blocks, for method alpha, which alone reads them and `beta`. Raises UsageError when
    there is less to give than there are blocks.
    """
    if method == "uniform":
        return uniform(blocks, total)
    if method in ("mola", "mola_reversed"):
        return mola(blocks, total, reverse=method == "mola_reversed")
    if alphas is None or len(alphas) != blocks:
        raise ValueError(f"allocation by alpha needs the exponents of all {blocks} blocks")
    return allocate(alphas, total, beta)
