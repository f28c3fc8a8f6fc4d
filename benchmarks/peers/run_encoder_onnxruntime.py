"""Peer: the encoder of run_encoder_torch.py in ONNX Runtime; float32, and int8 by `quantize_dynamic`.

python -m benchmarks.peers.run_encoder_onnxruntime --variant int8-dynamic
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.peers.harness import ENCODER_FILE, ENCODERS, Floats, Options, Step, Variant, answer, pad
from benchmarks.peers.sessions import open_session

VARIANTS = {"fp32": Variant("fp32"), "int8-dynamic": Variant("int8")}


def load(variant: Variant, options: Options) -> Step:
    """The session, ready to run; the state is that of the first token."""
    session = open_session(options.work / ENCODERS / variant.precision / "model.onnx", options.threads)

    def step(batch: Sequence[Sequence[int]]) -> Floats:
        tokens, last = pad(batch)
        mask = (np.arange(tokens.shape[1]) <= last[:, None]).astype(np.int64)  # attention is not causal here
        hidden: Floats = session.run(["last_hidden_state"], {"input_ids": tokens, "attention_mask": mask})[0]
        return hidden[:, 0]

    return step


if __name__ == "__main__":
    answer("encoder-onnxruntime", VARIANTS, load, ("onnxruntime",), ENCODER_FILE)
