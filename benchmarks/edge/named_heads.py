"""The same graph with the numbers of heads written on each `Attention`, which OpenVINO asks for.

Exports write them; the embedded bundle was exported before. ONNX tells them from shapes, which OpenVINO does not know
yet when it translates the node: without the numbers it repeats no key/value heads.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import ModelProto, helper


def name_heads(model: Path, target: Path) -> None:
    """Write `model` to `target` with `q_num_heads` and `kv_num_heads` on every `Attention`.

    The weights stay in their file, which must be found beside `target`, too.
    """
    content = onnx.load(model, load_external_data=False)
    query_heads, kv_heads = _heads(content)
    for node in content.graph.node:
        if node.op_type == "Attention" and not any(each.name == "q_num_heads" for each in node.attribute):
            node.attribute.append(helper.make_attribute("q_num_heads", query_heads))
            node.attribute.append(helper.make_attribute("kv_num_heads", kv_heads))
    onnx.save(content, target)


def _heads(content: ModelProto) -> tuple[int, int]:
    """Query heads and key/value heads: both are rotated, and there are never more of the latter."""
    rotations = (node for node in content.graph.node if node.op_type == "RotaryEmbedding")
    numbers = [each.i for node in rotations for each in node.attribute if each.name == "num_heads"]
    return max(numbers), min(numbers)
