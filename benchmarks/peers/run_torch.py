"""Peer: torch and transformers, the forward pass of the decoder alone.

python -m benchmarks.peers.run_torch --variant bf16-cut-sorted
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.peers.decoder import load_decoder
from benchmarks.peers.harness import Floats, Options, Step, Variant, answer, pad

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
VARIANTS = {
    f"{precision}-{'cut' if cut else 'uncut'}-{name}": Variant(precision, cut, batch)
    for precision in DTYPES
    for cut in (False, True)
    for name, batch in (("one", 1), ("sorted", 16))
}
VARIANTS["bf16-cut-sorted-compiled"] = Variant("bf16", compiled=True)


def load(variant: Variant, options: Options) -> Step:
    """The decoder, ready to run."""
    torch.set_num_threads(options.threads)
    model = load_decoder(options.base, variant.cut, DTYPES[variant.precision])
    forward = torch.compile(model, dynamic=True) if variant.compiled else model

    def step(batch: Sequence[Sequence[int]]) -> Floats:
        tokens, last = pad(batch)
        with torch.inference_mode():
            hidden = forward(input_ids=torch.from_numpy(tokens), use_cache=False).last_hidden_state
            states: Floats = hidden[torch.arange(len(batch)), torch.from_numpy(last)].float().numpy()
        return states

    return step


if __name__ == "__main__":
    answer("torch", VARIANTS, load, ("torch", "transformers"))
