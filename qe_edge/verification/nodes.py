"""Nodes of a graph: an allowed operator, attributes that are numbers and texts, and an order in which they can run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qe_edge.verification.onnx_fields import (
    ATTRIBUTE_FIELDS,
    ATTRIBUTES,
    NODE_DOMAIN,
    NODE_FIELDS,
    NODE_INPUTS,
    NODE_OUTPUTS,
    OPERATOR,
)
from qe_edge.verification.operators import check_domain, is_allowed
from qe_edge.verification.refusal import shown
from qe_edge.verification.wire import Message, WireError


@dataclass(frozen=True)
class Node:
    """One node, verified. Construct it with `read_node`."""

    operator: str
    inputs: Sequence[bytes]
    """names of values; an optional one that is left out has none"""
    outputs: Sequence[bytes]


def read_node(data: bytes) -> Node:
    """A NodeProto. Raises WireError naming the operator, domain or attribute that no export uses."""
    message = Message(data, NODE_FIELDS)
    domain = check_domain(message.one_bytes(NODE_DOMAIN))
    operator = message.one_bytes(OPERATOR).decode("utf-8", "replace")
    if not is_allowed(domain, operator):
        raise WireError(f"has a node of the operator {shown(operator)}, domain {shown(domain)}, which no export uses")
    for attribute in message.all_bytes(ATTRIBUTES):
        try:
            Message(attribute, ATTRIBUTE_FIELDS)
        except WireError as error:
            raise WireError(f"has a node {operator} with an attribute that {error}") from None
    return Node(operator, message.all_bytes(NODE_INPUTS), message.all_bytes(NODE_OUTPUTS))


def check_order(nodes: Iterable[Node], known: Iterable[bytes]) -> None:
    """Raise WireError unless nodes read only what is known or computed before, and compute each value once.

    ONNX Runtime would sort them; checks that go through the nodes once rely on their order. known: names of the
    graph's inputs and constants.
    """
    there = set(known)
    for node in nodes:
        for name in node.inputs:
            if name and name not in there:
                raise WireError(f"has a node {node.operator} that reads {_shown(name)} before it is computed")
        for name in node.outputs:
            if name in there:
                raise WireError(f"has a node {node.operator} that computes {_shown(name)} again")
            if name:
                there.add(name)


def _shown(name: bytes) -> str:
    return shown(name.decode("utf-8", "replace"))
