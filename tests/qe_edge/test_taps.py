"""The tap convention, against the published numbers of kept blocks."""

from __future__ import annotations

import pytest

from qe_edge.errors import UsageError
from qe_edge.taps import blocks_kept, keeps_final_norm


@pytest.mark.parametrize(
    ("blocks", "tap", "kept"),
    [  # ALOPE, arXiv 2508.07484: taps 7, 11, 16, 20, 24 of decoders with 28 and 32 blocks
        *((28, tap, kept) for tap, kept in ((1, 28), (7, 22), (11, 18), (16, 13), (20, 9), (24, 5))),
        *((32, tap, kept) for tap, kept in ((7, 26), (11, 22), (16, 17), (20, 13), (24, 9))),
    ],
)
def test_blocks_kept_are_the_published_ones(blocks: int, tap: int, kept: int) -> None:
    assert blocks_kept(tap, blocks) == kept


@pytest.mark.parametrize("tap", [0, -1, 31])
def test_taps_outside_the_decoder_are_refused(tap: int) -> None:
    with pytest.raises(UsageError, match=rf"tap TL-{tap} does not exist: a decoder of 30 blocks has TL-1 to TL-30"):
        blocks_kept(tap, 30)


def test_only_the_last_tap_is_read_after_the_final_norm() -> None:
    assert [keeps_final_norm(tap) for tap in (1, 2, 30)] == [True, False, False]
