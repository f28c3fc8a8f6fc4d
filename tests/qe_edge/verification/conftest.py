"""Bundles as a stranger would write them: changed files, and hashes that agree with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from qe_edge.bundle import MODEL_FILE, PAYLOAD, SPEC_FILE, TOKENIZER_FILE, file_sha256, open_bundle
from qe_edge.errors import BundleError

Rewrite = Callable[..., Path]
Refused = Callable[[Path], str]


def record_hashes(folder: Path) -> None:
    """Let `bundle.json` say what the files are now."""
    path = folder / SPEC_FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    content["files"] = {name: file_sha256(folder / name) for name in PAYLOAD}
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def with_file(counting_bundle: Path) -> Rewrite:
    """(name, bytes) -> a bundle that runs, but for this file."""

    def write(name: str, content: bytes) -> Path:
        (counting_bundle / name).write_bytes(content)
        if name != SPEC_FILE:
            record_hashes(counting_bundle)
        return counting_bundle

    return write


@pytest.fixture
def with_graph(counting_bundle: Path, with_file: Rewrite) -> Rewrite:
    """(change of the ModelProto) -> a bundle that runs, but for this change."""

    def write(change: Callable[[onnx.ModelProto], object]) -> Path:
        model = onnx.load(counting_bundle / MODEL_FILE, load_external_data=False)
        change(model)
        return with_file(MODEL_FILE, model.SerializeToString())

    return write


@pytest.fixture
def with_tokenizer(counting_bundle: Path, with_file: Rewrite) -> Rewrite:
    """(fields of the tokenizer's JSON) -> a bundle that runs, but for these."""

    def write(**changes: Any) -> Path:
        content = json.loads((counting_bundle / TOKENIZER_FILE).read_text(encoding="utf-8"))
        return with_file(TOKENIZER_FILE, json.dumps(content | changes).encode())

    return write


@pytest.fixture
def with_record(counting_bundle: Path, with_file: Rewrite) -> Rewrite:
    """(fields of `bundle.json`) -> a bundle that runs, but for these."""

    def write(**changes: Any) -> Path:
        content = json.loads((counting_bundle / SPEC_FILE).read_text(encoding="utf-8"))
        return with_file(SPEC_FILE, json.dumps(content | changes).encode())

    return write


@pytest.fixture
def refused() -> Refused:
    """(folder) -> the one line with which it is refused, without the folder."""

    def line(folder: Path) -> str:
        with pytest.raises(BundleError) as caught:
            open_bundle(folder)
        text = str(caught.value)
        assert text.startswith(f"{folder}/")
        assert "\n" not in text
        assert text.isprintable()
        assert len(text) < 600
        return text.removeprefix(f"{folder}/")

    return line
