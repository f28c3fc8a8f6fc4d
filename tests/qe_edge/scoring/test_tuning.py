"""A tuning lies beside its bundle, belongs to one machine, and changes how a bundle runs there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qe_edge import Row, Scorer
from qe_edge.errors import BundleError, OutputError
from qe_edge.scoring import tuning as tuning_module
from qe_edge.scoring.batching import TOKEN_BUDGET
from qe_edge.scoring.machine import machine_name, physical_cores
from qe_edge.scoring.tuning import Tuning, load_tuning, save_tuning, tuning_file


def test_a_saved_tuning_is_used_from_then_on_and_changes_no_score(counting_bundle: Path) -> None:
    row = Row.translation("Tere", "Hello", "et", "en")
    untuned = Scorer.load(counting_bundle, device="cpu")
    assert (untuned.engine.workers, untuned.engine.token_budget) == (physical_cores(), TOKEN_BUDGET)

    path = save_tuning(counting_bundle, Tuning(3, 5))
    assert path == counting_bundle.parent / "counting.tuning.json"
    tuned = Scorer.load(counting_bundle, device="cpu")

    assert (tuned.engine.workers, tuned.engine.token_budget) == (3, 5)
    assert Scorer.load(counting_bundle, device="cpu", threads=1).engine.workers == 1
    assert list(tuned.score([row])) == list(untuned.score([row]))


def test_the_tuning_of_another_machine_is_not_used_and_stays(
    counting_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(tuning_module, "machine_name", lambda: "Another, 64 cores")
        save_tuning(counting_bundle, Tuning(64, 1536))
    assert load_tuning(counting_bundle) is None
    save_tuning(counting_bundle, Tuning(2, 192))
    assert load_tuning(counting_bundle) == Tuning(2, 192)
    assert len(json.loads(tuning_file(counting_bundle).read_text())) == 2


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        "[]",
        "{MACHINE: 3}",
        '{MACHINE: {"workers": 2}}',
        '{MACHINE: {"workers": 0, "token_budget": 9}}',
        '{MACHINE: {"workers": "2", "token_budget": 9}}',
        '{MACHINE: {"workers": true, "token_budget": 9}}',
    ],
)
def test_a_file_that_is_no_tuning_is_refused_in_one_line(counting_bundle: Path, content: str) -> None:
    name = json.dumps(machine_name())
    tuning_file(counting_bundle).write_text(content.replace("MACHINE", name))
    with pytest.raises(BundleError) as caught:
        Scorer.load(counting_bundle, device="cpu")
    assert str(caught.value) == (
        f"{tuning_file(counting_bundle)}: not a tuning; delete it, or write it anew with qe-edge bench --tune"
    )


def test_a_broken_file_is_written_anew(counting_bundle: Path) -> None:
    tuning_file(counting_bundle).write_text("no json")
    save_tuning(counting_bundle, Tuning(2, 192))
    assert load_tuning(counting_bundle) == Tuning(2, 192)


def test_a_place_that_cannot_be_written_is_said(counting_bundle: Path) -> None:
    tuning_file(counting_bundle).mkdir()
    with pytest.raises(
        OutputError, match=r"counting\.tuning\.json: cannot be written: .*; free some space there, or copy the"
    ):
        save_tuning(counting_bundle, Tuning(2, 192))


def test_a_bundle_whose_name_leaves_no_room_for_a_tuning_has_none(tmp_path: Path) -> None:
    assert load_tuning(tmp_path / ("x" * 250)) is None
