"""Run qe-edge and its peers in turn on the same rows, several rounds, and print one table.

Every variant is run once a round, each in a process of its own, so that a change of the machine's speed meets them all.
Figures are medians over rounds; the file is written after each. The error of a state is measured against torch in
float32 with the same blocks, on the first rows; the last norm is left out of account by comparing directions:

    error     mean |v - f|, v and f the two states of a row scaled to length 1
    centred   |V - F| / |F - mean of F's rows|, all rows together: 1 and more means that rows cannot be told apart

    python -m benchmarks.peers.compare -o peers.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.harness import BASE, WORK, Floats


@dataclass(frozen=True)
class Peer:
    """A script with its variants, and the environment under WORK that it runs in; none for the project's own."""

    name: str
    script: str
    environment: str | None
    variants: tuple[str, ...]
    compared: bool = True
    """whether its states are those of the base"""


PEERS = (
    Peer("qe-edge", "run_qe_edge", None, ("command", "scorer"), compared=False),
    Peer("qe-edge", "run_qe_edge", None, ("states",)),
    Peer(
        "torch",
        "run_torch",
        "torch",
        (
            *(f"{p}-{b}-{s}" for p in ("fp32", "bf16") for b in ("uncut", "cut") for s in ("one", "sorted")),
            "bf16-cut-sorted-compiled",
        ),
    ),
    Peer("onnxruntime", "run_onnxruntime", "onnxruntime", ("fp32-uncut", "fp32-cut", "int8-dynamic-cut")),
    Peer(
        "openvino",
        "run_openvino",
        "openvino",
        ("fp32-uncut", "fp32-cut", "bf16-cut", "int8-weights-cut", "int8-static-cut"),
    ),
    Peer(
        "llama.cpp",
        "run_llama_cpp",
        "llama",
        ("f32-cut-one", "q8_0-uncut-one", "q8_0-cut-one", "q8_0-cut-sorted", "q4_0-cut-one", "q4_0-cut-sorted"),
    ),
    Peer("encoder-torch", "run_encoder_torch", "torch", ("fp32", "bf16"), compared=False),
    Peer("encoder-onnxruntime", "run_encoder_onnxruntime", "onnxruntime", ("fp32", "int8-dynamic"), compared=False),
)
OURS = "qe-edge command"
FAILED = 3
"""Exit code when a variant failed and the others were compared."""
REFERENCES = {"cut": "torch fp32-cut-sorted", "uncut": "torch fp32-uncut-sorted"}
"""Whose states are taken for right."""

Answers = dict[str, list[dict[str, Any]]]
"""What the scripts printed, by peer and variant, one entry a round."""


def answer_of(peer: Peer, variant: str, options: argparse.Namespace, vectors: Path) -> dict[str, Any]:
    """Run one variant; what it printed. Raises RuntimeError with the last line of its messages when it fails."""
    folder = options.work / peer.environment if peer.environment else None
    command = [str(folder / "bin" / "python") if folder else sys.executable, "-m", f"benchmarks.peers.{peer.script}"]
    command += ["--variant", variant, "--rows", str(options.rows), "--threads", str(options.threads)]
    command += ["--work", str(options.work), "--base", str(options.base)]
    if peer.compared:
        command += ["--vectors", str(vectors)]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode < 0:
        raise RuntimeError(f"ended by signal {-done.returncode}")
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def run_round(
    number: int, options: argparse.Namespace, folder: Path, answers: Answers, failures: dict[str, str]
) -> None:
    """Run every variant once; what it answered joins `answers`, why it failed `failures`: it is not run again."""
    for peer in PEERS:
        for variant in peer.variants:
            name = f"{peer.name} {variant}"
            if name in failures or not any(fnmatch(name, pattern) for pattern in options.only):
                continue
            try:
                answer = answer_of(peer, variant, options, folder / f"{name}.npy")
            except (OSError, RuntimeError) as error:
                failures[name] = str(error)
                print(f"round {number}  {name}: {error}", file=sys.stderr, flush=True)
                continue
            answers.setdefault(name, []).append(answer)
            print(f"round {number}  {name}: {answer['rows_per_second']:.1f} rows/s", file=sys.stderr, flush=True)


def errors(name: str, folder: Path) -> tuple[float, float] | None:
    """Error and centred error of a variant's states; None when it or its reference has none."""
    reference = folder / f"{REFERENCES['uncut' if '-uncut' in name else 'cut']}.npy"
    vectors = folder / f"{name}.npy"
    if not vectors.is_file() or not reference.is_file():
        return None
    return state_errors(np.load(vectors), np.load(reference))


def state_errors(vectors: Floats, reference: Floats) -> tuple[float, float]:
    """Error and centred error, as above, of states [N, H] against the reference's [N, H]."""
    v, f = (states / np.linalg.norm(states, axis=1, keepdims=True) for states in (vectors, reference))
    centred = np.linalg.norm(v - f) / np.linalg.norm(f - f.mean(axis=0))
    return float(np.linalg.norm(v - f, axis=1).mean()), float(centred)


def summary(answers: Answers, folder: Path) -> list[dict[str, Any]]:
    """One entry a variant: medians over its rounds, errors, and how many times faster qe-edge is."""
    entries = []
    ours = [answer["rows_per_second"] for answer in answers.get(OURS, [])]
    for name, rounds in answers.items():
        medians = {
            key: statistics.median(answer[key] for answer in rounds)
            for key in ("rows_per_second", "seconds", "load_seconds", "warm_up_seconds", "peak_rss_mib")
        }
        error = errors(name, folder)
        entries.append(
            {
                "name": name,
                **medians,
                "qe_edge_is_faster": statistics.median(ours) / medians["rows_per_second"] if ours else None,
                "error": error and error[0],
                "centred_error": error and error[1],
                "seconds_of_rounds": [answer["seconds"] for answer in rounds],
                "versions": rounds[0]["versions"],
            }
        )
    return entries


def table(entries: list[dict[str, Any]]) -> str:
    """The summary as Markdown."""

    def cell(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    lines = [
        "| | rows/s | qe-edge is faster by | load, s | peak memory, MiB | error of the state | centred |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in entries:
        cells = [
            entry["name"],
            cell(entry["rows_per_second"], ".1f"),
            cell(entry["qe_edge_is_faster"], ".2f"),
            cell(entry["load_seconds"], ".1f"),
            cell(entry["peak_rss_mib"], ".0f"),
            cell(entry["error"], ".4f"),
            cell(entry["centred_error"], ".3f"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def processor() -> str:
    """The processor's name as Linux gives it, else the architecture."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="names to run, as 'torch *'")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--base", type=Path, default=BASE)
    options = parser.parse_args()
    if not options.output.parent.is_dir():
        parser.error(f"-o {options.output}: no such folder; give a file in one that exists")
    machine = {"processor": processor(), "cpus": os.cpu_count(), "system": platform.platform()}
    answers: Answers = {}
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, options.rounds + 1):
            run_round(number, options, Path(folder), answers, failures)
            entries = summary(answers, Path(folder))
            settings = {"rows": options.rows, "rounds": number, "threads": options.threads}
            result = {"machine": machine, **settings, "results": entries, "failures": failures}
            options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"{options.rows} rows, {options.threads} threads, {options.rounds} rounds; {machine['processor']}\n")
    print(table(entries))
    if failures:
        print(f"failed: {', '.join(failures)}", file=sys.stderr)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
