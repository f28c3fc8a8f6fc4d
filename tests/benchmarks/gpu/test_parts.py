"""Files arrive whole, whatever the order of the parts; a damaged or foreign part is refused; wheels get installed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks.gpu.parts import pack, take

CONTENT = {"base/model.safetensors": bytes(range(256)) * 10, "data/test.tsv": b"a\tb\n", "empty": b""}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a large file, a small one and an empty one."""
    folder = tmp_path / "files"
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*"))


def test_parts_in_any_order_give_the_files_again(files: Path, tmp_path: Path) -> None:
    assert pack(files, tmp_path, piece=1000, group=1100) == 3
    first, second, third = parts(tmp_path)
    store = tmp_path / "store"

    assert take(third, store) == ["part-1", "part-2"]
    assert take(third, store) == ["part-1", "part-2"]
    assert take(first, store) == ["part-2"]
    assert not (store / "files").exists()
    assert take(second, store) == []

    assert {name: (store / "files" / name).read_bytes() for name in CONTENT} == CONTENT
    assert not (store / "pieces").exists()
    assert take(first, store) == []


def test_no_part_is_larger_than_asked(files: Path, tmp_path: Path) -> None:
    pack(files, tmp_path, piece=400, group=900)

    for part in parts(tmp_path):
        held = [path for path in part.rglob("*.piece-*") if path.is_file()]
        assert sum(path.stat().st_size for path in held) <= 900


def test_a_damaged_piece_is_refused_and_can_be_taken_again(files: Path, tmp_path: Path) -> None:
    pack(files, tmp_path, piece=5000, group=5000)
    (part,) = parts(tmp_path)
    piece = part / "base" / "model.safetensors.piece-000"
    whole = piece.read_bytes()
    piece.write_bytes(whole[:-1] + b"x")

    with pytest.raises(ValueError, match=r"base/model\.safetensors: its hash is not"):
        take(part, tmp_path / "store")

    piece.write_bytes(whole)
    assert take(part, tmp_path / "store") == []
    assert (tmp_path / "store" / "files" / "base" / "model.safetensors").read_bytes() == whole


def test_parts_of_another_packing_are_refused(files: Path, tmp_path: Path) -> None:
    pack(files, tmp_path / "one", piece=1000, group=1100)
    pack(files, tmp_path / "other", piece=500, group=1100)
    take(parts(tmp_path / "one")[0], tmp_path / "store")

    with pytest.raises(ValueError, match=r"another carry\.sh"):
        take(parts(tmp_path / "other")[0], tmp_path / "store")
    with pytest.raises(ValueError, match=r"no manifest\.json there"):
        take(files, tmp_path / "store")
    with pytest.raises(ValueError, match="holds parts already"):
        pack(files, tmp_path / "one")


def fake_wheel(folder: Path, name: str) -> None:
    """A wheel with one module that says where it comes from."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "CARRIED = True\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_receive_installs_the_wheels_after_the_last_part(repository: Path, tmp_path: Path) -> None:
    files, store = tmp_path / "files", tmp_path / "store"
    for name in ("carried_one", "carried_two"):
        fake_wheel(files / "wheels", name)
    (files / "metadata" / "qe_edge-0.dist-info").mkdir(parents=True)
    (files / "metadata" / "qe_edge-0.dist-info" / "METADATA").write_text("Name: qe-edge\nVersion: 0\n")
    pack(files, tmp_path, piece=500, group=700)
    command = ["bash", str(repository / "benchmarks" / "gpu" / "receive.sh")]
    environment = os.environ | {"PYTHON": sys.executable}

    def receive(part: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, part, store], capture_output=True, text=True, env=environment, check=True)

    *others, last = parts(tmp_path)
    assert others
    assert "missing: " in [receive(part).stderr for part in others][-1]
    assert not (store / "site").exists()
    for _ in range(2):  # again, when all is done
        done = receive(last)
        assert f":{store}/site LD_LIBRARY_PATH=" in done.stdout
        assert f"BASE={store}/files/base" in done.stdout
    assert {path.name for path in (store / "site").glob("*.py")} == {"carried_one.py", "carried_two.py"}
    assert (store / "site" / "qe_edge-0.dist-info" / "METADATA").is_file()
