"""Peer: OpenVINO, from the graph that optimum-onnx exports.

python -m benchmarks.peers.run_openvino --variant bf16-cut
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openvino  # type: ignore[import-not-found]  # in its environment only

from benchmarks.peers.harness import DECODERS, Floats, Options, Step, Variant, answer, decoder_inputs, pad

VARIANTS = {
    "fp32-uncut": Variant("fp32", cut=False),
    "fp32-cut": Variant("fp32"),
    "bf16-cut": Variant("bf16"),
    "int8-weights-cut": Variant("int8-weights"),
    "int8-static-cut": Variant("int8-static"),
}


def load(variant: Variant, options: Options) -> Step:
    """The compiled model, ready to run. Everything but bf16 computes in float32 what is not in int8."""
    stored = "fp32" if variant.precision == "bf16" else variant.precision
    path = options.work / DECODERS / "openvino" / f"{stored}-{'cut' if variant.cut else 'uncut'}.xml"
    hints = {
        "INFERENCE_NUM_THREADS": options.threads,
        "PERFORMANCE_HINT": "LATENCY",  # one batch at a time on all threads
        "INFERENCE_PRECISION_HINT": "bf16" if variant.precision == "bf16" else "f32",
    }
    model = openvino.Core().compile_model(path, "CPU", hints)
    request = model.create_infer_request()

    def step(batch: Sequence[Sequence[int]]) -> Floats:
        tokens, last = pad(batch)
        hidden = request.infer(decoder_inputs(tokens))["last_hidden_state"]
        states: Floats = hidden[np.arange(len(batch)), last].astype(np.float32)
        return states

    return step


if __name__ == "__main__":
    answer("openvino", VARIANTS, load, ("openvino", "nncf"))
