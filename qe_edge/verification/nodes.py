"""Nodes of a graph: an allowed operator, attributes that are numbers and texts, and an order in which they can run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qe_edge.verification.onnx_fields import (
    ATTRIBUTE_FIELDS,
    ATTRIBUTE_INT,
    ATTRIBUTE_INTS,
    ATTRIBUTE_NAME,
    ATTRIBUTE_TYPE,
    ATTRIBUTES,
    INT,
    NODE_DOMAIN,
    NODE_FIELDS,
    NODE_INPUTS,
    NODE_OUTPUTS,
    OPERATOR,
)
from qe_edge.verification.operators import check_domain, is_allowed
from qe_edge.verification.refusal import shown
from qe_edge.verification.wire import Message, WireError

LARGEST_ATTRIBUTE = 1 << 20
"""largest whole number of an attribute, or its negative: more than sizes of layers and vocabularies. ONNX Runtime
computes with some of them without looking whether the result fits."""


@dataclass(frozen=True)
class Node:
    """One node, verified. Construct it with `read_node`."""

    operator: str
    inputs: Sequence[bytes]
    """names of values, none left out"""
    outputs: Sequence[bytes]
    """the same"""
    numbers: Mapping[bytes, int]
    """attributes that are one whole number; 0 for others"""


def read_node(data: bytes) -> Node:
    """A NodeProto. Raises WireError naming the operator, domain or attribute that no export uses."""
    message = Message(data, NODE_FIELDS)
    domain = check_domain(message.one_bytes(NODE_DOMAIN))
    operator = message.one_bytes(OPERATOR).decode("utf-8", "replace")
    if not is_allowed(domain, operator):
        raise WireError(f"has a node of the operator {shown(operator)}, domain {shown(domain)}, which no export uses")
    numbers = {}
    for attribute in message.all_bytes(ATTRIBUTES):
        try:
            name, number = _read_attribute(attribute)
        except WireError as error:
            raise WireError(f"has a node {operator} with an attribute that {error}") from None
        if name in numbers:
            raise WireError(f"has a node {operator} with the attribute {_shown(name)} twice")
        numbers[name] = number
    inputs, outputs = message.all_bytes(NODE_INPUTS), message.all_bytes(NODE_OUTPUTS)
    if b"" in inputs or b"" in outputs:
        raise WireError(f"has a node {operator} that leaves an input or an output out")
    return Node(operator, inputs, outputs, numbers)


def _read_attribute(data: bytes) -> tuple[bytes, int]:
    """Name and whole number, or 0 for something else."""
    attribute = Message(data, ATTRIBUTE_FIELDS)
    single = attribute.one_number(ATTRIBUTE_INT)
    for number in (single, *attribute.all_numbers(ATTRIBUTE_INTS)):
        if min(number, (1 << 64) - number) > LARGEST_ATTRIBUTE:
            raise WireError(f"holds a number beyond {LARGEST_ATTRIBUTE}")
    return attribute.one_bytes(ATTRIBUTE_NAME), single if attribute.one_number(ATTRIBUTE_TYPE) == INT else 0


def check_order(nodes: Iterable[Node], known: Iterable[bytes]) -> None:
    """Raise WireError unless nodes read only what is known or computed before, and compute each value once.

    ONNX Runtime would sort them; checks that go through the nodes once rely on their order. known: names of the
    graph's inputs and constants.
    """
    there = set(known)
    for node in nodes:
        for name in node.inputs:
            if name not in there:
                raise WireError(f"has a node {node.operator} that reads {_shown(name)} before it is computed")
        for name in node.outputs:
            if name in there:
                raise WireError(f"has a node {node.operator} that computes {_shown(name)} again")
            there.add(name)


def _shown(name: bytes) -> str:
    return shown(name.decode("utf-8", "replace"))
