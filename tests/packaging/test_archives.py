"""What a release contains."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
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
BUILT = {"__pycache__", ".so"}
"""names and ends of names of what is made from a checkout"""
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
    files = (path for path in root.rglob("*") if path.is_file() and not BUILT & {path.parent.name, path.suffix})
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


def test_kernels_are_in_the_wheel_where_there_is_a_compiler(archives: Archives, in_wheel: dict[str, int]) -> None:
    if sys.platform != "linux" or platform.machine() != "x86_64" or shutil.which("c++") is None:
        pytest.skip("kernels are for Linux on x86-64 and want a C++ compiler")
    assert {f"qe_edge/scoring/kernels/x86-64-v{level}.so" for level in (3, 4)} <= in_wheel.keys()
    assert archives.wheel.name.endswith("-py3-none-linux_x86_64.whl")


@pytest.mark.parametrize("compiler", ["false", "no-such-compiler"])
def test_without_a_compiler_that_works_a_wheel_has_no_kernels_and_runs_everywhere(
    archives: Archives, tmp_path: Path, compiler: str
) -> None:
    with tarfile.open(archives.sdist) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(root)]
    done = subprocess.run(build, env={**os.environ, "CXX": compiler}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no kernels" in done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as files:
        assert not any(name.endswith(".so") for name in files.namelist())
