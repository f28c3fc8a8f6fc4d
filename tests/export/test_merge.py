"""Merging: exactly W + (alpha / rank) B A, of the weights the adapter was trained against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import bitsandbytes
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from qe_edge.bundle import file_sha256
from qe_edge.errors import InputError, UsageError
from qe_edge_export.export import prepare
from qe_edge_export.merge import merged_regressor
from qe_edge_train.build import load_cut_decoder
from qe_edge_train.run import Run, open_run, save_facts
from qe_edge_train.tapped import TappedRegressor

TOKENS = torch.tensor([[11, 45, 6, 80, 7], [5, 9, 33, 2, 61]])
LAST = torch.tensor([3, 4])
CPU = torch.device("cpu")
SCALE = 8 / 4
"""alpha / rank of the adapter in `tiny_run`."""


def adapter_deltas(run: Run) -> dict[str, Tensor]:
    """B A of every adapted linear map, by the name of its weight."""
    stored = load_file(run.adapter / "adapter_model.safetensors")
    return {
        name.removeprefix("base_model.model.").replace("lora_A.", ""): stored[name.replace("lora_A", "lora_B")] @ down
        for name, down in stored.items()
        if "lora_A" in name
    }


def scores_through_the_adapter(run: Run) -> Tensor:
    """Scores of the model as it was trained: base and adapter apart."""
    decoder = load_cut_decoder(run.recipe.base, 2, CPU)
    model = TappedRegressor(PeftModel.from_pretrained(decoder, str(run.adapter)), run.head())
    model.eval()
    with torch.no_grad():
        return model.forward(TOKENS, LAST, None)[0]


def test_every_adapted_weight_gains_the_scaled_product_and_nothing_else_changes(tiny_run: Callable[[str], Run]) -> None:
    run = tiny_run("none")
    before = load_cut_decoder(run.recipe.base, 2, CPU).state_dict()
    deltas = adapter_deltas(run)

    after = merged_regressor(run).decoder.state_dict()

    assert len(deltas) == 2 * 7
    assert after.keys() == before.keys()
    for name, weight in after.items():
        expected = before[name] + SCALE * deltas[name] if name in deltas else before[name]
        torch.testing.assert_close(weight, expected, atol=1e-6, rtol=0)
        assert (name in deltas) == bool((weight - before[name]).abs().max() > 1e-2)


@pytest.mark.parametrize("quantisation", ["none", "nf4"])
def test_the_merged_model_scores_as_base_and_adapter_do(tiny_run: Callable[[str], Run], quantisation: str) -> None:
    run = tiny_run(quantisation)
    expected = scores_through_the_adapter(run)

    with torch.no_grad():
        scores, _ = merged_regressor(run)(TOKENS, LAST, None)

    assert (expected[0] - expected[1]).abs() > 1
    torch.testing.assert_close(scores, expected, atol=0, rtol=1e-5)


def test_an_adapter_over_four_bits_is_merged_into_the_dequantised_values(tiny_run: Callable[[str], Run]) -> None:
    run = tiny_run("nf4")
    original = load_file(Path(run.recipe.base.model) / "model.safetensors")
    name = "layers.0.mlp.gate_proj.weight"

    merged = merged_regressor(run).decoder

    quantised = bitsandbytes.functional.quantize_4bit(original[name], quant_type="nf4", compress_statistics=True)
    seen_in_training = bitsandbytes.functional.dequantize_4bit(*quantised)
    delta = SCALE * adapter_deltas(run)[name]
    assert type(merged.get_submodule(name.removesuffix(".weight"))) is torch.nn.Linear
    torch.testing.assert_close(merged.state_dict()[name], seen_in_training + delta, atol=1e-6, rtol=0)
    assert (seen_in_training - original[name]).abs().max() > 1e-3


def test_a_merged_model_is_plain_float32_and_needs_no_gradient(tiny_run: Callable[[str], Run]) -> None:
    model = merged_regressor(tiny_run("nf4"))

    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any("lora" in name for name, _ in model.named_modules())


def test_merging_leaves_base_and_run_as_they_were(tiny_run: Callable[[str], Run]) -> None:
    run = tiny_run("none")
    paths = [
        path for folder in (Path(run.recipe.base.model), run.folder) for path in folder.rglob("*") if path.is_file()
    ]
    before = {path: file_sha256(path) for path in paths}

    first, second = merged_regressor(run), merged_regressor(run)

    assert {path: file_sha256(path) for path in paths} == before
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name])


def test_a_base_that_is_gone_is_named(tiny_run: Callable[[str], Run], tmp_path: Path) -> None:
    run = tiny_run("none")
    base = replace(run.recipe.base, model=str(tmp_path / "gone"))
    moved = replace(run, recipe=replace(run.recipe, base=base))

    with pytest.raises(UsageError, match=r"base '.*gone': its weights cannot be loaded: .*, or say in ") as caught:
        merged_regressor(moved)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"), [("adapter/adapter_model.safetensors", "adapter"), ("head.safetensors", "head.safetensors")]
)
def test_a_run_that_lacks_a_part_is_refused(tiny_run: Callable[[str], Run], name: str, said: str) -> None:
    run = tiny_run("none")
    (run.folder / name).unlink()

    with pytest.raises(InputError, match=rf"{said}: missing; the run folder is incomplete"):
        open_run(run.folder)


def test_a_run_without_a_head_is_refused_before_its_tables_are_read(
    tiny_run: Callable[[str], Run], tmp_path: Path
) -> None:
    run = tiny_run("none")
    save_facts(run.folder, replace(run.facts, head=None))

    with pytest.raises(InputError, match="this run only aligns languages and has no head"):
        prepare(run.folder, ["fp32"], lambda line: None, tmp_path / "no tables")
