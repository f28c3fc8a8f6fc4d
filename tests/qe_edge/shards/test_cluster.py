"""Shards on a Ray cluster: two nodes of one core each on this machine, of which one is lost, or has GPUs."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import onnxruntime
import pytest

from tests.qe_edge.shards.conftest import command, contents, run, write_tsv
from tests.qe_edge.shards.test_actors import ROWS, descendants, needs_two_workers, wait_for, workers_of

PATIENCE = 60.0
"""seconds that a cluster may take to start"""
NO_GPU = ("--num-gpus", "0")

pytestmark = [pytest.mark.slow, needs_two_workers]


class Cluster:
    """Nodes on this machine, each a command `ray start` with what it has begun."""

    def __init__(self, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.log = log
        self.nodes: list[subprocess.Popen[bytes]] = []

    def add(self, *options: str) -> None:
        arguments = [str(Path(sys.executable).parent / "ray"), "start", "--num-cpus", "1", "--block", *options]
        with self.log.open("ab") as log:
            self.nodes.append(subprocess.Popen(arguments, stdout=log, stderr=log))

    def wait(self) -> None:
        """Until all nodes have said that they run."""
        until = time.monotonic() + PATIENCE
        while self.log.read_text(encoding="utf-8").count("Ray runtime started.") < len(self.nodes):
            assert time.monotonic() < until, self.log.read_text(encoding="utf-8")
            time.sleep(0.1)

    def lose(self, node: subprocess.Popen[bytes]) -> None:
        """As when its machine is switched off."""
        for process in [*descendants(node.pid), node.pid]:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        node.wait()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    made = Cluster(tmp_path / "nodes.log")
    try:
        made.add(*NO_GPU, "--head", "--port", made.address.rpartition(":")[2], "--include-dashboard", "false")
        made.wait()
        made.add(*NO_GPU, "--address", made.address)
        made.wait()
        yield made
    finally:
        for node in made.nodes:
            made.lose(node)


def test_a_lost_node_is_done_without_and_the_output_is_that_of_one_process(
    cluster: Cluster, tmp_path: Path, bundle: Path
) -> None:
    folder, target, whole = tmp_path / "in", tmp_path / "out", tmp_path / "whole"
    folder.mkdir()
    for seed, name in enumerate("abcd"):
        write_tsv(folder / f"{name}.tsv", ROWS, seed)

    arguments = command(folder, target, bundle, "--engine", "ray", "--address", cluster.address)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(process, target, ".*.journal", 2)  # both nodes have noted rows
    lost = cluster.nodes[1]
    assert workers_of(lost.pid), "no worker was found on the second node"
    cluster.lose(lost)
    _, said = process.communicate()

    assert process.returncode == 0, said
    assert run(*command(folder, whole, bundle)).returncode == 0
    assert contents(target) == contents(whole)


def test_scorers_on_gpus_are_as_many_as_the_cluster_has(cluster: Cluster, tmp_path: Path, bundle: Path) -> None:
    """Ray is told that there are two, which it believes; without CUDA each scorer fails, and says why."""
    folder, target = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for seed, name in enumerate("abc"):
        write_tsv(folder / f"{name}.tsv", 4, seed)
    on_gpus = command(folder, target, bundle, "--device", "cuda", "--engine", "ray", "--address", cluster.address)

    none = run(*on_gpus)
    cluster.add("--address", cluster.address, "--num-gpus", "2")
    cluster.wait()
    too_many = run(*on_gpus, "--workers", "3")
    without_cuda = run(*on_gpus)

    assert none.returncode == 7
    assert none.stderr.splitlines()[-1].endswith("Ray knows of no GPU; use --device cpu, or a cluster with GPUs")
    assert too_many.returncode == 2
    assert "--workers 3: there is room for 2" in too_many.stderr
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return  # this ONNX Runtime offers CUDA: what becomes of scorers there is for a machine with GPUs
    assert without_cuda.returncode == 7
    assert "Traceback" not in without_cuda.stderr
    assert "--device cuda: this ONNX Runtime offers" in without_cuda.stderr.splitlines()[-1]
    assert contents(target) == {}
