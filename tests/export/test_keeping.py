"""The most harmful layers stay in float32, as many as asked for or as the gate needs."""

from __future__ import annotations

import pytest

from qe_edge.errors import GateError, UsageError
from qe_edge_export.keeping import Keep, Kept, keep_most_harmful, parse_keep

HARM = {"a": 0.1, "b": 0.4, "c": 0.2, "d": 0.4, "e": 0.0, "f": 0.3, "g": 0.05, "h": 0.01}


class Export:
    """Stands for an export whose gate holds once `needed` layers are kept; remembers what was tried."""

    def __init__(self, needed: int) -> None:
        self.needed = needed
        self.tried: list[list[str]] = []
        self.measured = 0
        self.lines: list[str] = []

    def attempt(self, kept: Kept) -> Kept:
        self.tried.append(list(kept))
        if len(kept) < self.needed:
            raise GateError(f"w8a8: loss with {len(kept)} is too large; nothing was written")
        return kept

    def measure(self) -> Kept:
        self.measured += 1
        return HARM

    def keep(self, keep: Keep) -> Kept:
        return keep_most_harmful(keep, self.attempt, self.measure, self.lines.append)


def test_without_layers_to_keep_nothing_is_measured() -> None:
    export = Export(needed=0)
    assert export.keep(0) == {}
    assert export.measured == 0


def test_so_many_of_the_most_harmful_layers_are_kept_with_their_errors() -> None:
    export = Export(needed=0)
    assert export.keep(3) == {"b": 0.4, "d": 0.4, "f": 0.3}
    assert export.measured == 1


def test_auto_keeps_none_where_the_gate_holds() -> None:
    export = Export(needed=0)
    assert export.keep("auto") == {}
    assert export.measured == 0


def test_auto_doubles_until_the_gate_holds_and_measures_once() -> None:
    export = Export(needed=3)
    assert list(export.keep("auto")) == ["b", "d", "f", "c"]
    assert export.tried == [[], ["b"], ["b", "d"], ["b", "d", "f", "c"]]
    assert export.measured == 1
    assert "w8a8: loss with 1 is too large" in export.lines


def test_auto_gives_up_at_half_of_all_layers() -> None:
    export = Export(needed=5)
    with pytest.raises(GateError, match="loss with 4 is too large"):
        export.keep("auto")
    assert max(map(len, export.tried)) == 4


def test_more_layers_than_there_are_is_an_error_of_the_user() -> None:
    with pytest.raises(UsageError, match="--keep-layers 9: the model has 8 linear layers; give fewer"):
        Export(needed=0).keep(9)


@pytest.mark.parametrize(("text", "keep"), [("auto", "auto"), ("0", 0), ("12", 12)])
def test_what_can_be_asked_for(text: str, keep: Keep) -> None:
    assert parse_keep(text) == keep


@pytest.mark.parametrize("text", ["-1", "some", "1.5", ""])
def test_what_cannot_be_asked_for(text: str) -> None:
    with pytest.raises(UsageError, match=f"--keep-layers {text}: give a whole number"):
        parse_keep(text)
