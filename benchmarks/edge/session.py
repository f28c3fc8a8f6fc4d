"""One graph in one runtime: a prefix, then rows after it, as scoring runs them.

    python -m benchmarks.edge.session RUNTIME model.onnx inputs.npz outputs.npz

It runs in the environment of the runtime, which holds numpy and nothing of qe-edge. Inputs: `prefix` int64 [1, P],
`tokens` int64 [B, S], `last` int64 [B] and `key_value` (blocks, key/value heads, head size). Outputs: `score` [B] and
`states` [2 L, 1, G, P, D], the keys and values of the prefix. A line of JSON says what happened: versions, nodes by
execution provider, or the stage that failed and the end of the message.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
MESSAGE = 500
"""Last characters of an error's message that are kept: the cause stands at the end."""


class Session(NamedTuple):
    """A loaded graph."""

    run: Callable[[Arrays, Sequence[str]], list[NDArray[Any]]]
    """(feeds, names of outputs) -> outputs"""
    facts: Callable[[], dict[str, Any]]
    """what can be said of the runtime, once all is run"""


def onnxruntime_session(model: str, provider: str = "CPUExecutionProvider") -> Session:
    """ONNX Runtime; what the provider does not take runs on its CPU provider."""
    import onnxruntime as ort

    with tempfile.NamedTemporaryFile(prefix="qe-edge-edge-", delete=False) as file:
        profile = Path(file.name)
    profile.unlink()
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(profile)
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=[provider], enable_fallback=0)
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"{provider} was not used, only {', '.join(session.get_providers())}")

    def facts() -> dict[str, Any]:
        written = Path(session.end_profiling())
        events = json.loads(written.read_text(encoding="utf-8"))
        written.unlink()
        return {"onnxruntime": ort.__version__, "nodes": nodes_by_provider(events)}

    return Session(lambda feeds, names: session.run(list(names), dict(feeds)), facts)


def openvino_session(model: str) -> Session:
    """OpenVINO by itself, all that is not in integers computed in float32."""
    import openvino  # type: ignore[import-not-found]  # in its environment only

    core = openvino.Core()
    request = core.compile_model(
        core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    ).create_infer_request()

    def run(feeds: Arrays, names: Sequence[str]) -> list[NDArray[Any]]:
        found = request.infer(dict(feeds))
        return [found[name].copy() for name in names]

    return Session(run, lambda: {"openvino": openvino.__version__})


RUNTIMES: dict[str, Callable[[str], Session]] = {
    "onnxruntime": onnxruntime_session,
    "onnxruntime-openvino": lambda model: onnxruntime_session(model, "OpenVINOExecutionProvider"),
    "openvino": openvino_session,
}


def nodes_by_provider(events: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """From ONNX Runtime's profile: provider -> operator -> nodes, each counted once however often it ran.

    What a provider runs in one piece is one node of it, named after the piece.
    """
    nodes = {
        (event["args"]["provider"], event["args"]["op_name"], event["name"])
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    }
    found: dict[str, Counter[str]] = {}
    for provider, operator, _ in sorted(nodes):
        found.setdefault(provider, Counter())[operator] += 1
    return {provider: dict(counts) for provider, counts in found.items()}


def scored(session: Session, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """`score` and `states` of one prefix and the rows after it."""
    blocks, heads, size = (int(number) for number in inputs["key_value"])
    places = [f"{kind}_{block}" for block in range(blocks) for kind in ("key", "value")]
    nothing = {f"past_{place}": np.zeros((1, heads, 0, size), np.float32) for place in places}
    prefix = inputs["prefix"]
    begun = {"tokens": prefix, "last": np.array([prefix.shape[1] - 1], np.int64)}
    states = session.run({**begun, **nothing}, [f"present_{place}" for place in places])
    past = {f"past_{place}": values for place, values in zip(places, states, strict=True)}
    (scores,) = session.run({"tokens": inputs["tokens"], "last": inputs["last"], **past}, ["score"])
    return {"score": scores, "states": np.stack(states)}


def tried(runtime: str, model: str, inputs: Arrays) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The outputs, none where it fails, and what happened."""
    found: dict[str, Any] = {"machine": platform.machine()}
    stage = "load"
    try:
        session = RUNTIMES[runtime](model)
        stage = "run"
        outputs = scored(session, inputs)
        return outputs, found | session.facts()
    except Exception as error:  # each runtime raises classes of its own
        message = " ".join(str(error).split()) or type(error).__name__
        return {}, found | {"failed": stage, "message": message[-MESSAGE:]}


def main() -> None:
    runtime, model, inputs_file, outputs_file = sys.argv[1:]
    with np.load(inputs_file) as inputs:
        outputs, found = tried(runtime, model, dict(inputs))
    np.savez(outputs_file, allow_pickle=False, **outputs)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
