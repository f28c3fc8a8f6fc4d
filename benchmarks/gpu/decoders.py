"""Decoders with random weights in the shapes of larger models: what speed and memory need, without any download.

    python -m benchmarks.gpu.decoders 1.5b 3b 8b

Each becomes a Hugging Face folder with the base's tokenizer, whose vocabulary is smaller than the decoder's.
"""

from __future__ import annotations

import shutil
import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, LlamaConfig

from benchmarks.gpu.step import finish, parser, run, say, torch_device
from qe_edge.errors import InputError

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json")
"""What is not taken over from the base's folder."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama decoder."""

    blocks: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int


SHAPES = {
    "tiny": Shape(4, 64, 8, 4, 128, 49_152),
    "1.5b": Shape(28, 1536, 12, 2, 8960, 151_936),  # Qwen2.5-1.5B
    "3b": Shape(36, 2048, 16, 2, 11_008, 151_936),  # Qwen2.5-3B
    "8b": Shape(32, 4096, 32, 8, 14_336, 128_256),  # Llama-3.1-8B
}


def decoder_folder(options: Namespace, shape: str) -> Path:
    """Where the decoder of a shape lies; "base" is the base itself, and with --tiny all are the tiny one.

    Raises InputError when it has not been made.
    """
    if options.tiny:
        shape = "tiny"
    folder: Path = options.base if shape == "base" else options.work / "decoders" / shape
    if not (folder / "config.json").is_file():
        remedy = "run make base" if shape == "base" else f"run python -m benchmarks.gpu.decoders {shape}"
        raise InputError(f"{folder}: no decoder there; {remedy}")
    return folder


def linear_parameters(decoder: Path, blocks: int) -> int:
    """Weights of the seven linear maps of so many blocks. A token costs two operations for each."""
    config = AutoConfig.from_pretrained(decoder)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 2 * config.hidden_size * size * (config.num_attention_heads + config.num_key_value_heads)
    return int(blocks * (attention + 3 * config.hidden_size * config.intermediate_size))


def activation_bytes(decoder: Path, tokens: int) -> int:
    """Bytes that so many tokens need at once where a block needs most, in its MLP.

    The residual stream and what is added to it are float32 [tokens, H]; gate, up and their product 16 bits [tokens, I].
    """
    config = AutoConfig.from_pretrained(decoder)
    return int(tokens * (2 * 4 * config.hidden_size + 3 * 2 * config.intermediate_size))


def make(shape: Shape, base: Path, folder: Path, device: torch.device) -> None:
    """Write a decoder of that shape, bfloat16, with the base's tokenizer. It appears when it is complete."""
    config = LlamaConfig(
        num_hidden_layers=shape.blocks,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocabulary,
        max_position_embeddings=4096,
    )
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(base, part, ignore=shutil.ignore_patterns(*WEIGHTS))
    torch.manual_seed(1)
    with device:  # billions of random numbers take minutes on a CPU
        decoder = AutoModel.from_config(config, dtype=torch.bfloat16)
    decoder.save_pretrained(part)
    part.rename(folder)


def main() -> None:
    options_of = parser(__doc__)
    options_of.add_argument("shapes", nargs="+", choices=SHAPES)
    options = options_of.parse_args()
    if not (options.base / "tokenizer.json").is_file():
        raise InputError(f"--base {options.base}: no tokenizer.json there; run make base")
    device = torch_device(options.device)
    seconds = {}
    for name in ["tiny"] if options.tiny else options.shapes:
        folder = options.work / "decoders" / name
        started = time.perf_counter()
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            make(SHAPES[name], options.base, folder, device)
        seconds[name] = time.perf_counter() - started
        say(f"{folder}: {seconds[name]:.0f} s")
    finish(options, {"seconds": seconds})


if __name__ == "__main__":
    run(main)
