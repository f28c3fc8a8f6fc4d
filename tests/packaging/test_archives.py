"""What a release contains."""

from __future__ import annotations

import tarfile
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import qe_edge
from qe_edge.bundle import PAYLOAD, SPEC_FILE
from tests.packaging.conftest import Archives

PACKAGES = {
    "qe_edge": "qe_edge",
    "train/qe_edge_train": "qe_edge_train",
    "export/qe_edge_export": "qe_edge_export",
}
"""Folder in the checkout -> package in the wheel."""
HEAVY = {"torch", "transformers", "peft", "bitsandbytes", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu"}


@pytest.fixture(scope="module")
def in_wheel(archives: Archives) -> dict[str, int]:
    """Path -> size of every file in the wheel."""
    with zipfile.ZipFile(archives.wheel) as wheel:
        return {entry.filename: entry.file_size for entry in wheel.infolist()}


@pytest.fixture(scope="module")
def in_sdist(archives: Archives) -> dict[str, int]:
    """Path below the top folder -> size of every file in the sdist."""
    with tarfile.open(archives.sdist) as sdist:
        return {entry.name.partition("/")[2]: entry.size for entry in sdist.getmembers() if entry.isfile()}


def checked_out(repository: Path, folder: str) -> dict[str, int]:
    """Path below `folder` -> size of every file of a package in the checkout."""
    root = repository / folder
    files = (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(root).as_posix(): path.stat().st_size for path in files}


@pytest.mark.parametrize(("folder", "package"), PACKAGES.items())
def test_every_file_of_every_package_is_in_both_archives(
    repository: Path, in_wheel: dict[str, int], in_sdist: dict[str, int], folder: str, package: str
) -> None:
    expected = checked_out(repository, folder)
    assert {"__init__.py", "py.typed"} <= expected.keys()
    assert {f"{package}/{path}": size for path, size in expected.items()}.items() <= in_wheel.items()
    assert {f"{folder}/{path}": size for path, size in expected.items()}.items() <= in_sdist.items()


def test_embedded_bundle_is_complete_in_both_archives(in_wheel: dict[str, int], in_sdist: dict[str, int]) -> None:
    for archive in (in_wheel, in_sdist):
        found = {Path(path).name for path in archive if path.startswith("qe_edge/bundles/")}
        assert {SPEC_FILE, *PAYLOAD} <= found


def test_wheel_puts_only_the_three_packages_into_site_packages(in_wheel: dict[str, int]) -> None:
    tops = {path.partition("/")[0] for path in in_wheel}
    assert tops == {*PACKAGES.values(), f"qe_edge-{qe_edge.__version__}.dist-info"}


def test_licence_and_notice_travel_with_both_archives(in_wheel: dict[str, int], in_sdist: dict[str, int]) -> None:
    folder = f"qe_edge-{qe_edge.__version__}.dist-info/licenses"
    assert {f"{folder}/LICENSE", f"{folder}/NOTICE"} <= in_wheel.keys()
    assert {"LICENSE", "NOTICE"} <= in_sdist.keys()


def test_wheel_requires_nothing_heavy_without_an_extra(archives: Archives) -> None:
    with zipfile.ZipFile(archives.wheel) as wheel:
        metadata = Parser().parsestr(wheel.read(f"qe_edge-{qe_edge.__version__}.dist-info/METADATA").decode())
    requirements = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    assert {need.name for need in requirements} >= HEAVY
    always = {need.name for need in requirements if need.marker is None or need.marker.evaluate({"extra": ""})}
    assert always == {"filelock", "langcodes", "language-data", "numpy", "py3langid", "tokenizers", "typer"}


def test_wheel_declares_the_command_and_its_two_plug_ins(archives: Archives) -> None:
    with zipfile.ZipFile(archives.wheel) as wheel:
        points = ConfigParser()
        points.read_string(wheel.read(f"qe_edge-{qe_edge.__version__}.dist-info/entry_points.txt").decode())
    assert dict(points["console_scripts"]) == {"qe-edge": "qe_edge.cli:main"}
    assert dict(points["qe_edge.commands"]) == {
        "train": "qe_edge_train.commands:register",
        "export": "qe_edge_export.commands:register",
    }
