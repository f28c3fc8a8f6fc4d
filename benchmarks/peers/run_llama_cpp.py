"""Peer: llama.cpp built for this processor, as an embedding model with last-token pooling.

python -m benchmarks.peers.run_llama_cpp --variant q8_0-cut-one
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp  # type: ignore[import-not-found]  # in its environment only
import numpy as np

from benchmarks.peers.harness import DECODERS, Floats, Options, Step, Variant, answer

ROW_TOKENS = 512
"""Most tokens of a prompt: the token limit of the embedded bundle."""
VARIANTS = {
    f"{precision}-{'cut' if cut else 'uncut'}-{name}": Variant(precision, cut, batch)
    for precision, cut, name, batch in (
        ("f32", True, "one", 1),
        ("q8_0", False, "one", 1),
        ("q8_0", True, "one", 1),
        ("q8_0", True, "sorted", 4),
        ("q4_0", True, "one", 1),
        ("q4_0", True, "sorted", 4),
    )
}


def load(variant: Variant, options: Options) -> Step:
    """Model and context, ready to run. Batches are of 4: attention is computed over all tokens of a batch, then masked.

    Raises RuntimeError when llama.cpp refuses the file.
    """
    path = options.work / DECODERS / "gguf" / f"{variant.precision}-{'cut' if variant.cut else 'uncut'}.gguf"
    context = open_context(path, variant.batch, options.threads)
    width = llama_cpp.llama_model_n_embd(llama_cpp.llama_get_model(context))
    tokens = llama_cpp.llama_batch_init(variant.batch * ROW_TOKENS, 0, 1)

    def step(batch: Sequence[Sequence[int]]) -> Floats:
        fill(tokens, batch)
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), False)
        if llama_cpp.llama_decode(context, tokens):
            raise RuntimeError(f"{path}: llama.cpp cannot run a batch of {tokens.n_tokens} tokens")
        states = [llama_cpp.llama_get_embeddings_seq(context, row) for row in range(len(batch))]
        return np.stack([np.ctypeslib.as_array(state, (width,)).copy() for state in states])

    return step


def open_context(path: Path, rows: int, threads: int) -> Any:
    """A context for batches of `rows` rows that gives the last position's state of each."""
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise RuntimeError(f"{path}: llama.cpp cannot load it; run prepare.sh")
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = rows * ROW_TOKENS
    parameters.n_seq_max = rows
    parameters.kv_unified = True  # rows of different length in one pass
    parameters.n_threads = parameters.n_threads_batch = threads
    parameters.embeddings = True
    parameters.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_LAST
    parameters.attention_type = llama_cpp.LLAMA_ATTENTION_TYPE_CAUSAL
    return llama_cpp.llama_init_from_model(model, parameters)


def fill(tokens: Any, batch: Sequence[Sequence[int]]) -> None:
    """Put the rows of a batch into llama.cpp's structure, each a sequence of its own."""
    tokens.n_tokens = 0
    for row, ids in enumerate(batch):
        for position, token in enumerate(ids):
            i = tokens.n_tokens
            tokens.token[i], tokens.pos[i] = token, position
            tokens.n_seq_id[i], tokens.seq_id[i][0] = 1, row
            tokens.logits[i] = True
            tokens.n_tokens += 1


if __name__ == "__main__":
    answer("llama.cpp", VARIANTS, load, ("llama-cpp-python",))
