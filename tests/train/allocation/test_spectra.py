"""Power-law exponents: closed forms, samples of known exponent, spectra, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel, Phi3Config, Phi3Model

from qe_edge.errors import InputError, UsageError
from qe_edge.metrics import FloatArray
from qe_edge_train.allocation.spectra import (
    block_alphas,
    block_means,
    block_spectra,
    eigenvalues,
    ks_peak,
    load_unquantised,
    matrix_alphas,
    pl_alpha_hill,
)

SHAPE: dict[str, Any] = {
    "vocab_size": 9,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def pareto(exponent: float, size: int, seed: int) -> FloatArray:
    """An ascending sample of the density proportional to x^-exponent from 1 upwards, by the inverse distribution."""
    uniform = np.random.default_rng(seed).random(size)
    sample: FloatArray = np.sort((1 - uniform) ** (-1 / (exponent - 1)))
    return sample


def direct_ks_peak(spectrum: FloatArray) -> float:
    """The same estimate with a loop over candidates and tails."""
    counts, edges = np.histogram(np.log10(spectrum), 100)
    lower, upper = 10 ** edges[counts.argmax()], 10 ** edges[counts.argmax() + 1]
    best = (np.inf, np.nan)
    for x_min in spectrum[:-1]:
        if not 0.95 * lower <= x_min <= max(1.5 * lower, upper):
            continue
        tail = [float(x) for x in spectrum if x >= x_min]
        alpha = 1 + len(tail) / sum(np.log(x / x_min) for x in tail)
        distance = 0.0
        for position, x in enumerate(tail):
            law = 1 - (x / x_min) ** (1 - alpha)
            distance = max(distance, law - position / len(tail), (position + 1) / len(tail) - law)
        best = min(best, (distance, alpha))
    return best[1]


def test_hill_is_exact_where_the_sum_is_known() -> None:
    # n = 6, k = 3, x_min = e^2: the logs above it are 1, 2 and 4, so alpha = 1 + 3 / 7
    spectrum = np.exp(np.array([-9.0, 0.0, 2.0, 3.0, 4.0, 6.0]))

    assert pl_alpha_hill(spectrum) == pytest.approx(1 + 3 / 7, rel=1e-12)


def test_hill_rounds_an_odd_half_down() -> None:
    # n = 5, k = 2, x_min = e^1: the logs above it are 1 and 3
    spectrum = np.exp(np.array([-2.0, 0.0, 1.0, 2.0, 4.0]))

    assert pl_alpha_hill(spectrum) == pytest.approx(1 + 2 / 4, rel=1e-12)


@pytest.mark.parametrize("estimate", [pl_alpha_hill, ks_peak])
@pytest.mark.parametrize("exponent", [1.5, 2.2, 3.5])
def test_both_estimators_find_the_exponent_of_a_pareto_sample(
    estimate: Callable[[FloatArray], float], exponent: float
) -> None:
    assert estimate(pareto(exponent, 4000, seed=2)) == pytest.approx(exponent, rel=0.05)


def test_ks_peak_finds_a_tail_above_a_body_that_misleads_the_median() -> None:
    body = np.exp(np.random.default_rng(0).uniform(-12, 0, 3000))
    spectrum = np.sort(np.concatenate([body, pareto(3.0, 2000, seed=1)]))

    assert ks_peak(spectrum) == pytest.approx(3.0, rel=0.05)
    assert pl_alpha_hill(spectrum) < 2.5


@pytest.mark.parametrize("seed", range(5))
def test_ks_peak_equals_a_direct_computation(seed: int) -> None:
    generator = np.random.default_rng(seed)
    spectrum = eigenvalues(torch.tensor(generator.normal(size=(40, 60)) * generator.lognormal(size=(40, 1))))

    assert ks_peak(spectrum) == pytest.approx(direct_ks_peak(spectrum), rel=1e-10)


@pytest.mark.parametrize("estimate", [pl_alpha_hill, ks_peak])
def test_exponents_do_not_depend_on_the_scale_of_the_weights(estimate: Callable[[FloatArray], float]) -> None:
    spectrum = pareto(2.0, 500, seed=4)

    assert estimate(spectrum * 1e-6) == pytest.approx(estimate(spectrum), rel=1e-9)


@pytest.mark.parametrize("shape", [(7, 12), (12, 7), (9, 9)])
def test_eigenvalues_are_the_squared_singular_values_ascending(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))

    expected = np.sort(np.linalg.svd(weight.double().numpy(), compute_uv=False) ** 2)

    np.testing.assert_allclose(eigenvalues(weight), expected, rtol=1e-10)


def test_eigenvalues_that_are_zero_are_left_out() -> None:
    left, right = torch.randn(10, 3, dtype=torch.float64), torch.randn(3, 20, dtype=torch.float64)

    assert len(eigenvalues(left @ right)) == 3
    assert len(eigenvalues(torch.zeros(4, 4))) == 0


@pytest.mark.parametrize("estimate", [pl_alpha_hill, ks_peak])
@pytest.mark.parametrize("spectrum", [[], [2.0], [3.0, 3.0, 3.0, 3.0]])
def test_a_spectrum_without_a_tail_has_no_exponent(
    estimate: Callable[[FloatArray], float], spectrum: list[float]
) -> None:
    with pytest.raises(ValueError, match=r"above zero|all the same|single value"):
        estimate(np.array(spectrum))


def weight(decoder: nn.Module, name: str) -> nn.Parameter:
    found = decoder.get_parameter(f"layers.{name}.weight")
    assert isinstance(found, nn.Parameter)
    return found


@pytest.fixture
def decoder() -> LlamaModel:
    """Three blocks, 16 wide; the key and value maps are 8 x 16."""
    torch.manual_seed(3)
    return LlamaModel(LlamaConfig(**SHAPE, num_hidden_layers=3))


def test_a_block_is_worth_the_mean_over_its_seven_matrices(decoder: LlamaModel) -> None:
    maps = [f"self_attn.{side}_proj" for side in "qkvo"] + [f"mlp.{part}_proj" for part in ("gate", "up", "down")]
    expected = np.mean([pl_alpha_hill(eigenvalues(weight(decoder, f"1.{name}"))) for name in maps])

    alphas = block_alphas(decoder, "hill_median")

    assert alphas.shape == (3,)
    assert alphas.dtype == np.float64
    assert alphas[1] == pytest.approx(expected, rel=1e-12)
    assert len(block_spectra(decoder)[1]["self_attn.k_proj"]) == 8


def test_a_block_with_lighter_tails_ranks_higher(decoder: LlamaModel) -> None:
    torch.manual_seed(0)
    for block, exponent in zip(decoder.layers, (1.5, 4.0, 2.5), strict=True):
        for linear in [module for module in block.modules() if isinstance(module, nn.Linear)]:
            left, _, right = torch.linalg.svd(torch.randn_like(linear.weight), full_matrices=False)
            singular = torch.tensor(pareto(exponent, left.shape[1], seed=1), dtype=torch.float32).sqrt()
            linear.weight.data = left * singular @ right

    assert block_alphas(decoder, "hill_median").argsort().tolist() == [0, 2, 1]


def test_fused_maps_count_as_the_one_matrix_that_they_are() -> None:
    decoder = Phi3Model(Phi3Config(**SHAPE, num_hidden_layers=1, pad_token_id=0))

    assert set(block_spectra(decoder)[0]) == {
        "self_attn.qkv_proj",
        "self_attn.o_proj",
        "mlp.gate_up_proj",
        "mlp.down_proj",
    }


def test_block_means_are_the_means_of_the_table(decoder: LlamaModel) -> None:
    table = matrix_alphas(block_spectra(decoder), "ks_peak")

    np.testing.assert_array_equal(block_means(table), block_alphas(decoder, "ks_peak"))
    assert block_means([{"a": 2.0, "b": 3.0}]).tolist() == [2.5]


def test_a_matrix_of_zeros_is_refused_by_name(decoder: LlamaModel) -> None:
    nn.init.zeros_(weight(decoder, "2.self_attn.o_proj"))

    with pytest.raises(InputError, match=r"block 3, self_attn.o_proj: no power law .* 0 eigenvalues above zero"):
        block_alphas(decoder, "hill_median")


def test_weights_that_are_not_finite_are_refused_by_name(decoder: LlamaModel) -> None:
    weight(decoder, "0.mlp.up_proj").data[1, 2] = float("nan")

    with pytest.raises(InputError, match=r"block 1, mlp.up_proj: it holds values that are not finite"):
        block_alphas(decoder, "hill_median")


def test_quantised_weights_are_refused(decoder: LlamaModel) -> None:
    quantised = torch.zeros(128, 1, dtype=torch.uint8)
    decoder.get_submodule("layers.0.self_attn.q_proj").weight = nn.Parameter(quantised, requires_grad=False)

    with pytest.raises(InputError, match=r"block 1, self_attn.q_proj: its weights are quantised"):
        block_alphas(decoder, "hill_median")


def test_a_base_is_loaded_in_the_type_it_is_stored_in(decoder: LlamaModel, tmp_path: Path) -> None:
    decoder.bfloat16().save_pretrained(tmp_path)

    loaded = load_unquantised(str(tmp_path))

    assert weight(loaded, "2.self_attn.q_proj").dtype == torch.bfloat16


def test_a_base_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be loaded"):
        load_unquantised(str(tmp_path / "nothing"))
