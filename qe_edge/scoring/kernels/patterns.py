"""Patterns of nodes that an export writes, and the kernels that stand for them.

What does not match stays as it is. That sizes of values belong together, the kernels check for every batch.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from qe_edge.scoring.kernels.onnx_bytes import Attribute, Node
from qe_edge.scoring.kernels.values import UINT8, Values

DOMAIN = "qe_edge"
"""of the kernels' operators"""
EXTEND = "extend"
"""input that a rewritten graph has besides: whether keys and values are asked for"""
CHANNELS = 16
"""kernels take numbers of channels that this divides"""
WIDEST_HEAD = 256
LAST_AXIS = struct.pack("<q", -1)
"""the axes of a reduction, as they stand in the file"""
ONE = struct.pack("<f", 1)
"""a scale, likewise"""
HEADS_FIRST = (0, 2, 1, 3)
"""Transpose [B, S, heads, D] to [B, heads, S, D], and back"""


@dataclass(frozen=True)
class _TokenSteps:
    """A QuantizeLinear that takes a step for each token from the token's largest magnitude."""

    activation: bytes
    constants: tuple[bytes, bytes, bytes]
    """smallest magnitude, steps that the largest one gets, zero point"""
    outputs: tuple[bytes, bytes]
    """the integers, and the step of each token"""


class Patterns(Values):
    """What of a graph the kernels can do."""

    def fused(self, head_dim: int, products: Mapping[bytes, bytes]) -> Iterator[Node]:
        """The nodes that stand for patterns; products: those that become a node."""
        steps = [found for node in self.nodes if (found := self._token_steps(node))]
        token_scales = {one.outputs[1] for one in steps}
        for one in steps:
            kernel = self._swiglu(one, token_scales, products)
            if kernel is None and head_dim % (2 * CHANNELS) == 0 and head_dim <= WIDEST_HEAD:
                kernel = self._attention(one)
            if kernel:
                yield kernel
        for node in self.nodes:
            if node.outputs[:1] and node.outputs[0] in products:
                yield _kernel("Linear", self._operands(node), node.outputs)
            kernel = self._add_norm(node, token_scales, products)
            if kernel:
                yield kernel

    def _with_token_scales(
        self, value: bytes, token_scales: set[bytes], products: Mapping[bytes, bytes]
    ) -> tuple[bytes, ...]:
        """The operands of a product; its tokens' scales, where it is multiplied by them, in place of a scale of one."""
        match self._maker(value, "Mul"):
            case Node(inputs=(product, scale)) if scale in token_scales and self._readers[product] == 1:
                if product in products and product not in self.outputs:
                    tokens, one, *rest = self._operands(self._makers[product])
                    return (tokens, scale, *rest) if self._written.get(one) == ONE else ()
        return self._operands(self._makers[value]) if value in products else ()

    def _token_steps(self, node: Node) -> _TokenSteps | None:
        if node.operator != "QuantizeLinear" or len(node.inputs) != 3:
            return None
        activation, scale, zeros = node.inputs
        match self._maker(scale, "Div"), self._maker(zeros, "Expand"):
            case Node(inputs=(magnitude, levels)), Node(inputs=(zero, _)):
                pass
            case _:
                return None
        match self._maker(magnitude, "Max"):
            case Node(inputs=(top, negative, floor)):
                bottom = self._only_input(negative, "Neg")
            case _:
                return None
        reduced = [self._over_channels(top, "ReduceMax"), self._over_channels(bottom, "ReduceMin")]
        if reduced != [activation, activation] or not self._scalars(floor, levels, zero) or self._types[zero] != UINT8:
            return None
        return _TokenSteps(activation, (floor, levels, zero), (node.outputs[0], scale))

    def _over_channels(self, value: bytes, operator: str) -> bytes:
        """What was reduced over its last axis, which stays as one number."""
        match self._maker(value, operator):
            case Node(inputs=(before, axes), attributes=attributes) if self._written.get(axes) == LAST_AXIS:
                return before if attributes.get("keepdims", 1) else b""
        return b""

    def _swiglu(self, steps: _TokenSteps, token_scales: set[bytes], products: Mapping[bytes, bytes]) -> Node | None:
        """gate * sigmoid(gate) * up, then a step for each token."""
        match self._maker(steps.activation, "Mul"):
            case Node(inputs=(activated, up)):
                pass
            case _:
                return None
        match self._maker(activated, "Mul"):
            case Node(inputs=(gate, sigmoid)) if self._only_input(sigmoid, "Sigmoid") == gate:
                pass
            case _:
                return None
        if self._readers[steps.activation] != 3 or self._channels(gate) != self._channels(up) or not self._channels(up):
            return None
        if (self._readers[gate], self._readers[up]) == (2, 1):
            of_gate, of_up = (self._with_token_scales(value, token_scales, products) for value in (gate, up))
            if of_gate[:3] == of_up[:3] != ():
                return _kernel("GatedQuantize", (*of_gate, *of_up[3:], *steps.constants), steps.outputs)
        return _kernel("SwigluQuantize", (gate, up, *steps.constants), steps.outputs)

    def _attention(self, steps: _TokenSteps) -> Node | None:
        """Attention after a past, from the projections of queries, keys and values, then a step for each token."""
        by_head = self._only_input(steps.activation, "Reshape", of=2)
        attention = self._maker(self._turned(by_head), "Attention")
        if attention is None or len(attention.inputs) != 4 or attention.outputs[1:]:
            return None
        attributes = dict(attention.attributes)
        heads, groups, scale = (attributes.pop(name, None) for name in ("q_num_heads", "kv_num_heads", "scale"))
        if heads is None or groups is None or scale is None or any(attributes.values()):
            return None
        mask = attention.inputs[3]
        query, cosine, sine = self._rotated(attention.inputs[0])
        past_key, turned_key = self._after_past(attention.inputs[1])
        past_value, turned_value = self._after_past(attention.inputs[2])
        key, *same = self._rotated(turned_key)
        value = self._projected(turned_value)
        inputs = (query, key, value, cosine, sine, past_key, past_value, mask)
        if same != [cosine, sine] or not all(inputs):
            return None
        # what is replaced, for keys and values that are not asked for are left out
        once = [by_head, *attention.outputs, *attention.inputs[1:3]]
        if [self._readers[name] for name in once] != [1] * len(once) or self._readers[steps.activation] != 3:
            return None
        if not self.outputs.isdisjoint([by_head, *attention.outputs, steps.activation]):
            return None
        return _kernel(
            "AttendQuantize",
            (*inputs, *steps.constants, EXTEND.encode()),
            (*steps.outputs, *attention.inputs[1:3]),
            {"heads": heads, "groups": groups, "scale": scale},
        )

    def _add_norm(self, node: Node, token_scales: set[bytes], products: Mapping[bytes, bytes]) -> Node | None:
        """residual + product * its tokens' steps, then a norm, then one step for all tokens."""
        match node:
            case Node(operator="QuantizeLinear", inputs=(normed, scale, zero)) if self._readers[normed] == 1:
                pass
            case _:
                return None
        match self._maker(normed, "RMSNormalization"):
            case Node(inputs=(added, gain), attributes=attributes):
                pass
            case _:
                return None
        if attributes.get("axis", -1) != -1 or attributes.get("stash_type", 1) != 1:
            return None
        match self._maker(added, "Add"):
            case Node(inputs=(residual, scaled)):
                pass
            case _:
                return None
        match self._maker(scaled, "Mul"):
            case Node(inputs=(product, token_scale)) if token_scale in token_scales and self._readers[scaled] == 1:
                pass
            case _:
                return None
        _, scale, zero = node.inputs
        if (
            not self._scalars(scale, zero)
            or self._types[zero] != UINT8
            or not self._multiple(self._shapes.get(gain, ()))
        ):
            return None
        rest, outputs = (token_scale, gain, scale, zero), (added, node.outputs[0])
        epsilon: dict[str, Attribute] = {"epsilon": attributes.get("epsilon", 1e-5)}
        if product in products and self._readers[product] == 1 and product not in self.outputs:
            operands = self._operands(self._makers[product])
            return _kernel("LinearAddNormQuantize", (*operands, residual, *rest), outputs, epsilon)
        return _kernel("AddNormQuantize", (residual, product, *rest), outputs, epsilon)

    def _rotated(self, value: bytes) -> tuple[bytes, bytes, bytes]:
        """The projection that was turned by its positions, cosine and sine; nothing where that is not what it was."""
        match self._maker(value, "RotaryEmbedding"):
            case Node(inputs=(turned, cosine, sine), attributes=attributes):
                if not attributes.get("interleaved", 0) and not attributes.get("rotary_embedding_dim", 0):
                    return self._projected(turned), cosine, sine
        return b"", b"", b""

    def _projected(self, value: bytes) -> bytes:
        """The projection [B, S, heads * D] that became [B, heads, S, D]."""
        return self._only_input(self._turned(value), "Reshape", of=2)

    def _turned(self, value: bytes) -> bytes:
        match self._maker(value, "Transpose"):
            case Node(inputs=(before,), attributes={"perm": perm}) if perm == HEADS_FIRST:
                return before
        return b""

    def _after_past(self, value: bytes) -> tuple[bytes, bytes]:
        """The input of the past, and what comes after it, of an output that joins them for every row."""
        match self._maker(value, "Concat") if value in self.outputs else None:
            case Node(inputs=(repeated, now), attributes={"axis": -2 | 2}):
                pass
            case _:
                return b"", b""
        match self._maker(repeated, "Add"):
            case Node(inputs=(past, nothing)) if past not in self._makers and self._is_zero(nothing):
                return past, now
        return b"", b""

    def _is_zero(self, value: bytes) -> bool:
        """Whether a value is a difference of something from itself, of another type or shape perhaps."""
        match self._makers.get(value):
            case Node(operator="Cast" | "Unsqueeze", inputs=(before, *_)):
                return self._is_zero(before)
            case Node(operator="Sub", inputs=(one, other)):
                return one == other
        return False

    def _channels(self, value: bytes) -> int:
        """Channels of a product, its tokens' steps applied or not, if the kernels take so many; else 0."""
        scaled = self._only_input(value, "Mul", of=2)
        match self._maker(scaled or value, "MatMulIntegerToFloat"):
            case Node(inputs=(_, weights, *_)) if self._multiple(self._shapes.get(weights, ())):
                return self._shapes[weights][-1]
        return 0

    @staticmethod
    def _multiple(shape: tuple[int, ...]) -> bool:
        return bool(shape) and shape[-1] % CHANNELS == 0


def _kernel(
    operator: str, inputs: tuple[bytes, ...], outputs: tuple[bytes, ...], attributes: dict[str, Attribute] | None = None
) -> Node:
    return Node(operator, inputs, outputs, attributes or {}, DOMAIN)
