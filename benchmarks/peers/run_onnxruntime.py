"""Peer: the graph that optimum-onnx exports from the base, in ONNX Runtime; float32, and int8 by `quantize_dynamic`.

python -m benchmarks.peers.run_onnxruntime --variant fp32-cut
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.peers.harness import DECODERS, Floats, Options, Step, Variant, answer, decoder_inputs, pad
from benchmarks.peers.sessions import open_session

VARIANTS = {"fp32-uncut": Variant("fp32", cut=False), "fp32-cut": Variant("fp32"), "int8-dynamic-cut": Variant("int8")}


def load(variant: Variant, options: Options) -> Step:
    """The session, ready to run."""
    folder = f"optimum-{'cut' if variant.cut else 'uncut'}" + ("-int8" if variant.precision == "int8" else "")
    session = open_session(options.work / DECODERS / folder / "model.onnx", options.threads)

    def step(batch: Sequence[Sequence[int]]) -> Floats:
        tokens, last = pad(batch)
        hidden: Floats = session.run(["last_hidden_state"], decoder_inputs(tokens))[0]
        return hidden[np.arange(len(batch)), last]

    return step


if __name__ == "__main__":
    answer("onnxruntime", VARIANTS, load, ("onnxruntime",))
