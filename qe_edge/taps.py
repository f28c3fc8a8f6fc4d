"""The tap convention, defined once: TL-k reads the residual stream k steps from the end.

For a decoder of N blocks, Hugging Face's `hidden_states` has N + 1 entries: index 0 is the embedding output and
index i the residual stream after block i; only the last one has passed the final norm. TL-k is `hidden_states[-k]`
(ALOPE, arXiv 2508.07484), so TL-1 is after the final norm and every other tap is the raw residual stream.
"""

from __future__ import annotations

from qe_edge.errors import UsageError


def blocks_kept(tap: int, blocks: int) -> int:
    """Blocks that must be run for tap TL-`tap` of a decoder with `blocks` blocks: N - k + 1.

    Raises UsageError when the tap lies outside 1..N (TL-(N+1) would be the embedding output: nothing to train).
    """
    if not 1 <= tap <= blocks:
        raise UsageError(f"tap TL-{tap} does not exist: a decoder of {blocks} blocks has TL-1 to TL-{blocks}")
    return blocks - tap + 1


def keeps_final_norm(tap: int) -> bool:
    """Only TL-1 is read after the decoder's final norm."""
    return tap == 1
