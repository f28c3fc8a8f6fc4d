"""What an export writes passes the checks for strangers' bundles, in every precision (families: test_families.py)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import onnx_ir as ir
import torch

from qe_edge.verification.model import check_model
from qe_edge_export.graph import attach_head, export_states, key_value_shape
from qe_edge_export.passes import quantise_w4a8, quantise_w8a8, quantise_weight_only, simplify, to_half
from qe_edge_export.samples import CalibrationRows, PairRows
from qe_edge_export.writer import save_model
from qe_edge_train.tapped import TappedRegressor

TinyRegressor = Callable[..., TappedRegressor]
PRECISIONS: dict[str, Callable[[ir.Model, CalibrationRows], None]] = {
    "fp16": to_half,
    "w8a8": partial(quantise_w8a8, frequent=(3, 4)),
    "w4a8": partial(quantise_w4a8, frequent=(3, 4)),
    "int8": partial(quantise_weight_only, bits=8, frequent=(3, 4)),
    "int4": partial(quantise_weight_only, bits=4, embedding_bits=8),
}


def verified(model: ir.Model, folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    save_model(model, folder)
    return check_model(folder / "model.onnx", folder / "model.onnx.data")


def test_graphs_of_every_precision_with_experts_and_several_taps_are_accepted(
    tiny_regressor: TinyRegressor, tmp_path: Path
) -> None:
    regressor = tiny_regressor("llama", 2, 3, strategy="dynamic", experts=(1, 3))
    states = export_states(regressor)
    simplify(states)
    tokens = torch.randint(3, 90, (4, 9), generator=torch.Generator().manual_seed(0)).tolist()
    rows = CalibrationRows((PairRows([5, 6], tokens),), key_value_shape(states))

    for name, quantise in PRECISIONS.items():
        model = states.clone()
        quantise(model, rows)
        attach_head(model, regressor.head)
        assert " nodes of " in verified(model, tmp_path / name)
