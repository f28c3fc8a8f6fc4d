"""Peer: an encoder of XLM-RoBERTa-large's shape, as learnt metrics use it, in torch; random weights, speed only.

python -m benchmarks.peers.run_encoder_torch --variant bf16
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.peers.encoder import load_encoder
from benchmarks.peers.harness import ENCODER_FILE, Floats, Options, Step, Variant, answer, pad

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
VARIANTS = {name: Variant(name) for name in DTYPES}


def load(variant: Variant, options: Options) -> Step:
    """The encoder, ready to run; its state is that of the first token."""
    torch.set_num_threads(options.threads)
    model = load_encoder(DTYPES[variant.precision])

    def step(batch: Sequence[Sequence[int]]) -> Floats:
        tokens, last = pad(batch)
        mask = (np.arange(tokens.shape[1]) <= last[:, None]).astype(np.int64)  # attention is not causal here
        with torch.inference_mode():
            hidden = model(torch.from_numpy(tokens), attention_mask=torch.from_numpy(mask)).last_hidden_state
            states: Floats = hidden[:, 0].float().numpy()
        return states

    return step


if __name__ == "__main__":
    answer("encoder-torch", VARIANTS, load, ("torch", "transformers"), ENCODER_FILE)
