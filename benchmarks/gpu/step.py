"""What the steps share: options, places, the device, memory in use, and the JSON that each writes."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qe_edge.errors import InputError, QeEdgeError

if TYPE_CHECKING:
    import torch

WORK = Path(".cache/gpu")
"""Decoders, runs and bundles that the steps make and share; what is there already is used."""
BASE = Path(".cache/smollm2-135m-instruct")
"""The base of the embedded recipe, made by `make base`."""
DATA = Path("data/mlqe-pe")
"""The direct-assessment files of MLQE-PE."""
MIB = 1 << 20
GIB = 1 << 30


def parser(doc: str | None) -> ArgumentParser:
    """The options that every step has; doc: its help."""
    found = ArgumentParser(description=doc, formatter_class=RawDescriptionHelpFormatter)
    found.add_argument("-o", "--output", type=Path, help="JSON file to write; it is printed, too")
    found.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to rehearse without a GPU")
    found.add_argument("--tiny", action="store_true", help="a tiny random decoder for every shape, and few rows")
    found.add_argument("--work", type=Path, default=WORK, help=f"folder of what steps make (default {WORK})")
    found.add_argument("--base", type=Path, default=BASE, help=f"folder of the base (default {BASE})")
    found.add_argument("--data", type=Path, default=DATA, help=f"folder of the tables (default {DATA})")
    return found


def run(main: Callable[[], None]) -> None:
    """Run a step; an error with a known cause ends it with one line."""
    try:
        main()
    except QeEdgeError as error:
        sys.exit(f"error: {error}")


def write(options: Namespace, result: dict[str, Any]) -> None:
    """Write what is known so far to the step's file, in one go: a step that is stopped leaves its last figures."""
    if options.output is not None:
        part = options.output.with_name(f"{options.output.name}.part")
        part.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        part.replace(options.output)


def finish(options: Namespace, result: dict[str, Any]) -> None:
    """Write and print the whole result."""
    write(options, result)
    print(json.dumps(result, indent=2), flush=True)


def say(line: str) -> None:
    """Progress, to standard error."""
    print(line, file=sys.stderr, flush=True)


def passed_on(options: Namespace) -> list[str]:
    """The options that every step has, but for the output, for a process that a step starts."""
    found = ["--device", options.device, "--work", str(options.work), "--base", str(options.base)]
    return [*found, "--data", str(options.data), *(["--tiny"] if options.tiny else [])]


def measured_apart(options: Namespace, module: str, *arguments: str) -> dict[str, Any]:
    """What a module of this folder prints, as JSON in its last line, in a process of its own.

    Raises RuntimeError with the last line of its messages when it fails.
    """
    command = [sys.executable, "-m", f"benchmarks.gpu.{module}", *arguments, *passed_on(options)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{last_line(done.stderr)} (exit code {done.returncode})")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def last_line(text: str) -> str:
    """The last line that says something, to stand for a whole message."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no message")


def bundle_folder(options: Namespace, shape: str, precision: str) -> Path:
    """Where the bundle of a shape lies; `benchmarks.gpu.bundles` makes it."""
    folder: Path = options.work / "bundles" / shape / precision
    return folder


def made_bundle(options: Namespace, shape: str, precision: str) -> Path:
    """The same. Raises InputError when it has not been made."""
    folder = bundle_folder(options, shape, precision)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such bundle; make it with python -m benchmarks.gpu.bundles {shape}")
    return folder


def torch_device(name: str) -> torch.device:
    """The device in torch. Raises DeviceError when there is none of that name."""
    from qe_edge_train.session import pick_device

    return pick_device(name)


def synchronise(device: torch.device) -> None:
    """Wait for everything that was handed to the device."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def gpu_facts() -> dict[str, str]:
    """Name, driver and memory of the first card, from nvidia-smi."""
    names = ("name", "driver_version", "memory.total")
    return dict(zip(names, _nvidia_smi(",".join(names)).split(", "), strict=True))


def used_memory() -> int:
    """Bytes that all processes together hold on the first card, CUDA's own included."""
    return int(_nvidia_smi("memory.used").split()[0]) * MIB


def _nvidia_smi(query: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
