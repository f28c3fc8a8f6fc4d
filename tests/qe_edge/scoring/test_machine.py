"""Cores are counted once each, and not beyond what a container may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from qe_edge.scoring import machine


@pytest.fixture
def eight_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of four cores with two threads each, all of which may be used."""
    for cpu in range(8):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    monkeypatch.setattr(machine, "TOPOLOGY", tmp_path)
    monkeypatch.setattr(machine, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(machine, "usable_cpus", lambda: set(range(8)))
    return tmp_path


def test_threads_of_a_core_count_once(eight_threads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.physical_cores() == 4
    monkeypatch.setattr(machine, "usable_cpus", lambda: {0, 4, 1})
    assert machine.physical_cores() == 2


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 4), ("250000 100000", 3), ("50000 100000", 1)])
def test_a_container_uses_what_it_is_granted(eight_threads: Path, quota: str, cores: int) -> None:
    (eight_threads / "cpu.max").write_text(f"{quota}\n")
    assert machine.physical_cores() == cores


def test_without_a_topology_every_processor_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "TOPOLOGY", tmp_path / "none")
    monkeypatch.setattr(machine, "QUOTA", tmp_path / "none")
    monkeypatch.setattr(machine, "usable_cpus", lambda: {0, 1, 2})
    assert machine.physical_cores() == 3


def test_this_machine_has_a_name_and_its_cores() -> None:
    assert machine.machine_name().endswith(f", {machine.physical_cores()} cores")
    assert not machine.machine_name().startswith(",")
