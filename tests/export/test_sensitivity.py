"""The error of one layer alone: found by name, largest where the damage is, and near that of the exported graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from qe_edge_export.calibrate import activation_ranges
from qe_edge_export.graph import export_states, key_value_shape
from qe_edge_export.merge import merged_regressor
from qe_edge_export.passes import quantise_linears, quantise_weights, simplify, smooth
from qe_edge_export.passes.linear import FLOAT, linears, linears_by_input
from qe_edge_export.samples import CalibrationRows, SampleSizes, load_samples
from qe_edge_export.sensitivity import keep_in_float, layer_errors, layer_name, quantised_product, rounded_activations
from qe_edge_train.run import Run
from qe_edge_train.tapped import TappedRegressor


def test_activations_on_a_worked_example() -> None:
    x = torch.tensor([[127.0, -63.5, 0.5], [4.0, -1.0, 0.0]])
    # as in w8a8: halves to even, and -1 is -31.75 steps of 4 / 127
    expected = torch.tensor([[127.0, -64.0, 0.0], [4.0, -32 * 4 / 127, 0.0]])
    torch.testing.assert_close(rounded_activations(x, 3), expected)


def test_a_group_of_channels_has_a_step_of_its_own() -> None:
    x = torch.tensor([[1270.0, 4.0, 1.27, 0.5]])
    torch.testing.assert_close(rounded_activations(x, 2), torch.tensor([[1270.0, 0.0, 1.27, 0.5]]))


@pytest.mark.parametrize(("precision", "error"), [("w8a8", 0.015), ("int8", 0.015), ("w4a8", 0.12), ("int4", 0.12)])
def test_a_quantised_product_is_close_to_float32(precision: str, error: float) -> None:
    random = np.random.default_rng(1)
    weight, x = (random.standard_normal(shape).astype(np.float32) for shape in ((96, 64), (20, 96)))
    found = quantised_product(weight, None, precision)(torch.from_numpy(x)).numpy()
    assert 0 < np.linalg.norm(found - x @ weight) / np.linalg.norm(x @ weight) < error


def test_smoothing_takes_an_outlier_out_of_the_activations() -> None:
    random = np.random.default_rng(2)
    weight, x = (random.standard_normal(shape).astype(np.float32) for shape in ((64, 32), (20, 64)))
    x[:, 5] *= 300
    factor = np.where(np.arange(64) == 5, 30, 1).astype(np.float32)
    plain, smoothed = (
        np.linalg.norm(quantised_product(weight, each, "w8a8")(torch.from_numpy(x)).numpy() - x @ weight)
        for each in (None, factor)
    )
    assert smoothed < 0.5 * plain


@dataclass(frozen=True)
class Spoiled:
    """A trained model with one weight so large that the step of a down projection suffers, and its graph."""

    run: Run
    model: TappedRegressor
    graph: ir.Model


@pytest.fixture(scope="module")
def spoiled(tiny_run: Callable[[str], Run]) -> Spoiled:
    run = tiny_run("none")
    model = merged_regressor(run)
    up = model.get_submodule("decoder.layers.1.mlp.up_proj")
    assert isinstance(up, torch.nn.Linear)
    with torch.no_grad():
        up.weight[3] *= 40
    graph = export_states(model)
    simplify(graph)
    return Spoiled(run, model, graph)


@pytest.mark.parametrize("precision", ["w8a8", "int4"])
def test_every_layer_is_measured_as_the_exported_graph_would_show_it(spoiled: Spoiled, precision: str) -> None:
    run, model, graph = spoiled.run, spoiled.model, spoiled.graph.clone()
    samples = load_samples(run, Path(run.facts.data_folder), SampleSizes(calibration=4, refit=1, gate=1))
    rows = CalibrationRows.of(samples.calibration, key_value_shape(graph))

    errors = layer_errors(graph, model, rows, samples.calibration, precision)

    assert set(errors) == {layer_name(linear) for linear in linears(graph)}
    assert {name.rpartition(".")[2] for name in errors} >= {"q_proj", "o_proj", "down_proj"}
    assert len(errors) == 14
    exact = rows.states(graph)
    for name in ("decoder.layers.0.self_attn.q_proj", "decoder.layers.1.mlp.down_proj"):
        alone = graph.clone()
        if precision == "w8a8":
            smooth(alone, activation_ranges(alone, rows, [str(value.name) for value in linears_by_input(alone)]))
        keep_in_float(alone, set(errors) - {name})
        assert sum(FLOAT in linear.product.metadata_props for linear in linears(alone)) == 13
        if precision == "w8a8":
            quantise_linears(alone)
        else:
            quantise_weights(alone, 4)
        shown = float(np.linalg.norm(rows.states(alone) - exact) / np.linalg.norm(exact))
        assert errors[name] == pytest.approx(shown, rel=0.1)
