"""The built archives, and an environment that holds nothing but the light install."""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Archives:
    """What a release uploads."""

    wheel: Path
    sdist: Path


@dataclass(frozen=True)
class Environment:
    """A virtual environment."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(self, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run `python ...` or another program of the environment."""
        program, *arguments = command
        return subprocess.run(
            [self.folder / "bin" / program, *arguments], cwd=cwd, capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="session")
def archives(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Archives:
    """The sdist of the checkout, and the wheel built from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(repository)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return Archives(wheel, sdist)


@pytest.fixture(scope="session")
def light(archives: Archives, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel and its extra `cpu`, as a user installs them."""
    environment = Environment(tmp_path_factory.mktemp("light") / "venv")
    venv.create(environment.folder, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(environment.python), "install", "--quiet"]
    wheel = f"qe-edge[cpu] @ {archives.wheel.as_uri()}"
    done = subprocess.run(
        [*pip, "-c", str(repository / "constraints.txt"), wheel], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return environment
