"""Passes that make an exported graph smaller and faster and leave what it computes as it is."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from qe_edge_export.passes.norms import whole_norms
from qe_edge_export.passes.sizes import count_sizes


def simplify(model: ir.Model) -> None:
    """Share, shorten and tidy, in place: same inputs, same outputs, less to compute.

    Layers that read one input stay apart: one product and a Split were slower (docs/quantisation.md).
    """
    common.LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    count_sizes(model)
    whole_norms(model)
    share_subexpressions(model)
    remove_unused(model)


def share_subexpressions(model: ir.Model) -> None:
    """Compute equal things once: exporters repeat the cosines and sines of the rotary embedding for every use."""
    common.CommonSubexpressionEliminationPass()(model)


def remove_unused(model: ir.Model) -> None:
    """Drop nodes and initializers that no output depends on."""
    common.RemoveUnusedNodesPass()(model)
