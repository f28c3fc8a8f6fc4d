"""GGUF files of the base for llama.cpp: float32, then quantised by llama.cpp itself; whole and cut.

The architecture `llama-embed` is llama without the product with the vocabulary, which this task does not need and which
`llama` computes for every token when embeddings are asked for. The file has no tokenizer: token ids are given.

    python -m benchmarks.peers.make_gguf
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import gguf
import llama_cpp  # type: ignore[import-not-found]  # in its environment only
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from benchmarks.peers.harness import BASE, CUT_BLOCKS, DECODERS, WORK, Floats, new_folder

ARCHITECTURE = "llama-embed"
FORMATS = {"q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}
MAPS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Names of a block's weights in transformers and in GGUF."""


def write_float(base: Path, blocks: int, cut: bool, path: Path) -> None:
    """Write a Llama base in float32 with its first blocks.

    cut: the final norm, which llama.cpp always applies, gets weights of one: the state then has its direction.
    """
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    weights = load_file(base / "model.safetensors")
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(blocks)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_causal_attention(True)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    norm = weights["model.norm.weight"]
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", np.ones_like(norm) if cut else norm)
    for block in range(blocks):
        for theirs, ours in MAPS.items():
            weight = weights[f"model.layers.{block}.{theirs}.weight"]
            if ours in ("attn_q", "attn_k"):
                weight = interleaved(weight, heads if ours == "attn_q" else groups)
            writer.add_tensor(f"blk.{block}.{ours}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleaved(weight: NDArray[np.float32], heads: int) -> Floats:
    """The rows [heads * D, H] of a query or key map in the order that llama.cpp's rotary positions need.

    It turns neighbours (2i, 2i + 1) where transformers turns (i, i + D / 2).
    """
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def quantise(source: Path, target: Path, file_type: int) -> None:
    """Quantise a file with llama.cpp. Raises RuntimeError when it fails."""
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = file_type
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), parameters):
        raise RuntimeError(f"{source}: llama.cpp cannot quantise it to {target.name}")


def convert(base: Path, folder: Path) -> None:
    """Write the whole and the cut base in every format to `folder`."""
    every = json.loads((base / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    for name, blocks in (("uncut", every), ("cut", CUT_BLOCKS)):
        whole = folder / f"f32-{name}.gguf"
        write_float(base, blocks, name == "cut", whole)
        for precision, file_type in FORMATS.items():
            quantise(whole, folder / f"{precision}-{name}.gguf", file_type)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--work", type=Path, default=WORK)
    arguments = parser.parse_args()
    target = arguments.work / DECODERS / "gguf"
    if not target.is_dir():
        with new_folder(target) as folder:
            convert(arguments.base, folder)


if __name__ == "__main__":
    main()
