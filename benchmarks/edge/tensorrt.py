"""What TensorRT's ONNX parser has of the operators of a bundle, on paper: it cannot be loaded without a driver.

Source: docs/operators.md of github.com/onnx/onnx-tensorrt for TensorRT 10.15, opsets 9 to 24; for later versions the
release notes in its pull requests (Swish: 11.0, #1054). The first versions with Attention are 10.14 (#1043), with
RMSNormalization and RotaryEmbedding 10.15 (#1048).
"""

from __future__ import annotations

from collections.abc import Iterable

from qe_edge.verification.operators import CONTRIB, CONTRIB_OPERATORS, OPERATORS

LACKING = {
    "QuantizeLinear": "its zero point must be 0; a bundle's is 128",
    "Swish": "from TensorRT 11.0 on",
    **{f"{CONTRIB}.{operator}": "not in the parser; needs a plugin" for operator in CONTRIB_OPERATORS},
}
"""Operators that an export may write and the parser does not take, with the reason."""
TAKEN = frozenset(OPERATORS - LACKING.keys())
"""The others, in the form that an export writes: Attention with four inputs of four dimensions and one output, no
operator but QuantizeLinear and Cast on 8-bit or 4-bit integers."""


def lacking(operators: Iterable[str]) -> dict[str, str]:
    """Of these operators (those of other domains as domain.name) the ones that the parser lacks, and why.

    Raises KeyError for an operator that no bundle has.
    """
    unknown = set(operators) - TAKEN
    return {operator: LACKING[operator] for operator in sorted(unknown)}
