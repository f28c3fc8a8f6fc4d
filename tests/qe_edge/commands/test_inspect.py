"""`qe-edge inspect`: what a bundle is, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qe_edge.bundle import open_bundle
from qe_edge.cli import main
from tests.qe_edge.conftest import write_counting_bundle


def test_the_text_says_what_the_bundle_is(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bundle)]) == 0
    opened = open_bundle(bundle)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for line in [
        f"bundle tiny@{opened.digest}",
        f"folder {bundle}",
        "size 0.0 MiB",
        "base model SmolLM2-135M-Instruct (llama)",
        "licence Apache-2.0",
        "training data MLQE-PE",
        "reads columns source, translation",
        "languages et-en (Estonian-English), ne-en (Nepali-English)",
        "score DA 0-100",
        "tap TL-11 (single): 20 of 30 blocks",
        "precision w8a8",
        "spearman 0.9877",
        "et-en spearman 0.612, pearson 0.633",
        f"sha256 model.onnx {opened.spec.files['model.onnx']}",
    ]:
        assert line in lines


def test_the_values_stand_in_one_column(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["inspect", str(bundle)])
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert first.index("tiny@") == second.index(str(bundle))


def test_json_holds_everything_that_the_bundle_records(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bundle), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    recorded = json.loads((bundle / "bundle.json").read_text())
    assert {name: content[name] for name in recorded} == recorded
    assert content["tap"] == "TL-11"
    assert content["digest"] == open_bundle(bundle).digest
    assert content["bytes"] == sum(path.stat().st_size for path in bundle.iterdir())


def test_languages_that_are_no_pairs_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write_counting_bundle(tmp_path / "odd", language_pairs=["en", "et-en"])
    assert main(["inspect", str(bundle)]) == 0
    assert " en, et-en (Estonian-English)\n" in capsys.readouterr().out


def test_a_tampered_bundle_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "model.onnx").write_text("another graph")
    assert main(["inspect", str(bundle)]) == 6
    assert capsys.readouterr().err.startswith(f"qe-edge: error: {bundle}/model.onnx: sha256 ")


def test_a_bundle_for_other_texts_says_which_columns_and_no_languages(
    text_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(text_bundle)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "reads columns text" in lines
    assert "score words" in lines
    assert not [line for line in lines if line.startswith("languages")]
