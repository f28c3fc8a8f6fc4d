"""A bundle is verified before anything in it is used."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from qe_edge.bundle import PAYLOAD, open_bundle
from qe_edge.errors import BundleError


@pytest.fixture
def folder(bundle: Path) -> Path:
    """A bundle that opens."""
    return bundle


def test_a_written_bundle_is_opened_as_it_was(folder: Path) -> None:
    bundle = open_bundle(folder)

    assert bundle.spec.name == "tiny"
    assert bundle.spec.tap_label == "TL-11"
    assert bundle.size == sum(path.stat().st_size for path in folder.iterdir())
    assert len(bundle.digest) == 12


@pytest.mark.parametrize("name", PAYLOAD)
def test_one_changed_byte_is_refused(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1] + b"!")

    with pytest.raises(BundleError, match=rf"{name}: sha256 .* differs from the recorded"):
        open_bundle(folder)


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Change bundle.json through its parsed content."""

    def apply(folder: Path) -> None:
        path = folder / "bundle.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return apply


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda folder: (folder / "model.onnx.data").unlink(), "model.onnx.data: missing or not a plain file"),
        (lambda folder: (folder / "bundle.json").unlink(), "is not a bundle"),
        (lambda folder: (folder / "bundle.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "bundle.json").write_text("[]"), "a JSON object is expected"),
        (edit(lambda c: c.update(format_version=2)), "format version 2, this qe-edge reads 1"),
        (edit(lambda c: c.pop("taps")), "missing or unknown fields: ['taps']"),
        (edit(lambda c: c.update(extra=1)), "missing or unknown fields: ['extra']"),
        (edit(lambda c: c.update(precision="int3")), "unknown precision 'int3'"),
        (edit(lambda c: c.update(prompt="{sl} {tl}")), "`prompt`: prompt template '{sl} {tl}' has no text field"),
        (edit(lambda c: c["files"].update({"../evil": "0"})), "`files` must name exactly"),
    ],
)
def test_a_damaged_bundle_is_refused_with_the_file_and_a_remedy(
    folder: Path, damage: Callable[[Path], object], expected: str
) -> None:
    damage(folder)

    with pytest.raises(BundleError) as caught:
        open_bundle(folder)

    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("format_version", True, "int, not True"),
        ("name", None, "str, not None"),
        ("data", "MLQE-PE", "list[str], not 'MLQE-PE'"),
        ("language_pairs", [["et", "en"]], "list[str], not [['et', 'en']]"),
        ("taps", ["11"], "list[int], not ['11']"),
        ("blocks_kept", "20", "int, not '20'"),
        ("kv_heads", 3.0, "int, not 3.0"),
        ("head_dim", True, "int, not True"),
        ("prompt", 5, "str, not 5"),
        ("bos", "<s>", "int | None, not '<s>'"),
        ("token_limit", None, "int, not None"),
        ("precision", ["w8a8"], "str, not ['w8a8']"),
        ("gate", [], "dict[str, Any], not []"),
        ("created_with", {"torch": 2}, "dict[str, str], not {'torch': 2}"),
        ("files", dict.fromkeys(PAYLOAD), "dict[str, str], not {'model.onnx': None"),
        ("files", list(PAYLOAD), "dict[str, str], not ["),
    ],
)
def test_a_field_of_another_type_is_refused_by_name(folder: Path, field: str, value: object, expected: str) -> None:
    edit(lambda content: content.update({field: value}))(folder)

    with pytest.raises(BundleError) as caught:
        open_bundle(folder)

    assert str(caught.value).startswith(f"{folder}/bundle.json: `{field}` must be {expected}")
    assert "\n" not in str(caught.value)


def test_a_bundle_says_what_a_row_is_through_its_prompt(folder: Path) -> None:
    assert open_bundle(folder).prompt.is_translation
    edit(lambda content: content.update(prompt="{premise} {claim} =", language_pairs=[]))(folder)

    assert open_bundle(folder).prompt.fields == ("premise", "claim")


@pytest.mark.parametrize("bos", [None, 1])
def test_an_optional_token_may_be_there_or_not(folder: Path, bos: int | None) -> None:
    edit(lambda content: content.update(bos=bos))(folder)

    assert open_bundle(folder).spec.bos == bos


@pytest.mark.parametrize("name", ["bundle.json", *PAYLOAD])
def test_a_file_that_cannot_be_read_is_named(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        # Permissions would not keep the superuser out.
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)

    with pytest.raises(BundleError) as caught:
        open_bundle(folder)

    assert str(caught.value).startswith(f"{folder}/{name}: cannot be read (Permission denied); check its permissions")


def test_a_link_in_place_of_a_file_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "model.onnx"
    (folder / "model.onnx").rename(outside)
    (folder / "model.onnx").symlink_to(outside)

    with pytest.raises(BundleError, match="not a plain file"):
        open_bundle(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle folder; give the folder"):
        open_bundle(tmp_path / "none")


def test_a_name_that_the_system_refuses_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"x: cannot be read \(File name too long\); check its permissions, its name"):
        open_bundle(tmp_path / ("x" * 300))


def test_every_field_is_a_plain_json_value(folder: Path) -> None:
    spec = open_bundle(folder).spec

    assert json.loads(json.dumps(asdict(spec))) == asdict(spec)
