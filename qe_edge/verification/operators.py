"""The operators of the graphs that an export writes; a bundle may have no others.

The list is what the supported families use in every precision, after the rewrites of the export, with all heads and
adapters. None of them reads a file, holds a graph of its own or calls code that comes with a model. An export whose
graph has another operator fails when it opens its own bundle, so a new operator is added here and reviewed.
"""

from __future__ import annotations

from qe_edge.verification.refusal import shown
from qe_edge.verification.wire import WireError

STANDARD = ("", "ai.onnx")
CONTRIB = "com.microsoft"
DOMAINS = (*STANDARD, CONTRIB)

OPERATORS = frozenset(
    (
        *("Attention", "LayerNormalization", "MatMul", "QuantizeLinear", "RMSNormalization", "RotaryEmbedding"),
        *(
            "Abs",
            "Add",
            "Cos",
            "CumSum",
            "Div",
            "Max",
            "Min",
            "Mul",
            "Neg",
            "Pow",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "Sin",
            "Sqrt",
            "Sub",
        ),
        *("Erf", "Gelu", "Relu", "Sigmoid", "Softmax", "Swish", "Tanh"),
        *("Less", "LessOrEqual", "NonZero", "TopK", "Where"),
        *("Cast", "Concat", "Expand", "Gather", "GatherND", "Range", "Reshape", "ScatterElements", "ScatterND"),
        *("Shape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
    )
)
CONTRIB_OPERATORS = frozenset(("GatherBlockQuantized", "MatMulIntegerToFloat", "MatMulNBits"))


def is_allowed(domain: str, operator: str) -> bool:
    """Whether a graph may have this operator."""
    return operator in (CONTRIB_OPERATORS if domain == CONTRIB else OPERATORS)


def check_domain(name: bytes) -> str:
    """A domain as text. Raises WireError for one that is not known, which would be a library of somebody else."""
    domain = name.decode("utf-8", "replace")
    if domain not in DOMAINS:
        raise WireError(f"uses operators of the domain {shown(domain)}; known are those of ONNX and com.microsoft")
    return domain
