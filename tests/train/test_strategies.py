"""Whole runs of every head strategy and every kind of adapter: complete, recorded, and the same after a reload."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from qe_edge.bundle import file_sha256
from qe_edge.metrics import Agreement
from qe_edge.prompt import Prompt
from qe_edge_train.allocation.allocate import block_counts
from qe_edge_train.allocation.spectra import block_alphas
from qe_edge_train.batches import encode
from qe_edge_train.build import adapted_decoder, base_facts, load_cut_decoder, prompt_encoder
from qe_edge_train.data import load_examples
from qe_edge_train.decoder import load_decoder
from qe_edge_train.evaluate import per_pair, predict
from qe_edge_train.recipe import Adapter, Allocation, Base, Head, Recipe
from qe_edge_train.run import Run, open_run
from qe_edge_train.session import train_run
from qe_edge_train.summary import summary_table
from qe_edge_train.tapped import TappedRegressor
from tests.train.conftest import PROMPT

CPU = torch.device("cpu")
ADAPTERS = {
    "lora": Adapter(rank=4, alpha=8),
    "rank_per_block": Adapter(kind="rank_per_block", rank=4, alpha=8),
    "experts": Adapter(kind="experts", rank=2, alpha=4, experts=2.0, dropout=0.05, allocation=Allocation("mola")),
    "none": Adapter(kind="none"),
}
SUMMARY = {
    "lora": "LoRA of rank 4",
    "rank_per_block": "LoRA ranks",
    "experts": "LoRA experts of rank 2, 1 2 3 by block (mola), 6 in all",
    "none": "none",
}


def silent(line: str) -> None:
    """Progress nobody reads."""


def with_parts(recipe: Recipe, strategy: str, taps: tuple[int, ...], kind: str) -> Recipe:
    head = Head(strategy=strategy, taps=taps, layer_norm=True, bias=True, prompt=PROMPT, token_limit=400)  # type: ignore[arg-type]
    options = dataclasses.replace(recipe.optimiser, epochs=1)
    return dataclasses.replace(recipe, head=head, adapter=ADAPTERS[kind], optimiser=options)


def rescored(run: Run, tables: Path) -> dict[str, Agreement]:
    """Dev metrics of the model as it is read back from the run's folder."""
    model = TappedRegressor(adapted_decoder(run, CPU), run.head())
    examples, _ = load_examples(run.recipe.dev, "mean", tables, 1, Prompt(run.recipe.head.prompt))
    data = encode(examples, prompt_encoder(base_facts(run.recipe.base), run.recipe.head))
    rows = range(len(examples))
    return per_pair(data, rows, predict(model, data, rows, CPU))


def assert_scores_as_recorded(run: Run, tables: Path) -> None:
    for pair, value in rescored(run, tables).items():
        assert value.mae == pytest.approx(run.facts.dev["pairs"][pair]["mae"], abs=1e-3)
        assert value.spearman == pytest.approx(run.facts.dev["pairs"][pair]["spearman"], abs=1e-6)


@pytest.mark.parametrize(
    ("strategy", "taps", "kind", "kept"),
    [
        ("dynamic", (1, 3), "lora", 4),
        ("dynamic", (2, 4), "rank_per_block", 3),
        ("multi", (2, 4), "experts", 3),
        ("multi", (1, 3), "none", 4),
        ("single", (2,), "none", 3),
    ],
)
def test_a_run_is_complete_and_scores_the_same_after_a_reload(
    recipe: Recipe, tables: Path, tmp_path: Path, strategy: str, taps: tuple[int, ...], kind: str, kept: int
) -> None:
    before = file_sha256(Path(recipe.base.model) / "model.safetensors")

    run = train_run(with_parts(recipe, strategy, taps, kind), tmp_path / "run", tables, CPU, silent)

    facts = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    assert open_run(run.folder) == run
    assert (facts["blocks_kept"], facts["blocks_total"]) == (kept, 4)
    assert (facts["head"]["strategy"], facts["head"]["offsets"]) == (strategy, [tap - min(taps) for tap in taps])
    total = {"lora": 4 * kept, "rank_per_block": 4 * kept, "experts": 2 * kept, "none": 0}[kind]
    assert (len(facts["adapter"]), sum(facts["adapter"])) == (0 if kind == "none" else kept, total)
    head = sum(p.numel() for p in run.head().parameters())
    stored = [load_file(path) for path in run.adapter.glob("*.safetensors")]
    assert facts["trainable"] == head + sum(tensor.numel() for file in stored for tensor in file.values())
    assert len(stored) == (kind != "none")
    assert file_sha256(Path(recipe.base.model) / "model.safetensors") == before
    assert_scores_as_recorded(run, tables)
    table = summary_table(run)
    assert f"head      {strategy}, {'+'.join(f'TL-{tap}' for tap in taps)}\n" in table
    assert f"adapter   {SUMMARY[kind]}" in table
    assert f"{facts['trainable']} trained parameters" in table


def test_the_weights_of_dynamic_weighting_are_learnt_and_kept(recipe: Recipe, tables: Path, tmp_path: Path) -> None:
    run = train_run(with_parts(recipe, "dynamic", (1, 3), "none"), tmp_path / "run", tables, CPU, silent)

    mix = run.head().mix
    assert mix is not None
    assert (mix.theta - 1).abs().min() > 1e-4
    for tap in range(2):
        assert (mix.tap_matrix(tap) - torch.eye(64)).abs().max() > 1e-4
    assert load_file(run.folder / "head.safetensors").keys() == run.head().state_dict().keys()
    assert_scores_as_recorded(run, tables)


def test_ranks_follow_the_blocks_and_peft_loads_them(recipe: Recipe, tables: Path, tmp_path: Path) -> None:
    uneven = Adapter(kind="rank_per_block", rank=4, alpha=8, allocation=Allocation("mola_reversed"))
    changed = dataclasses.replace(with_parts(recipe, "single", (2,), "lora"), adapter=uneven)

    run = train_run(changed, tmp_path / "run", tables, CPU, silent)

    model = PeftModel.from_pretrained(load_cut_decoder(recipe.base, 2, CPU), str(run.adapter))
    found = [
        {
            (layer.lora_A["default"].get_parameter("weight").shape[0], layer.scaling["default"])
            for layer in block.modules()
            if isinstance(layer, LoraLayer)
        }
        for block in model.get_base_model().get_submodule("layers").children()
    ]
    # 12 ranks as 8 : 6 : 4
    assert run.facts.adapter == [5, 4, 3]
    assert found == [{(rank, 2.0)} for rank in run.facts.adapter]


def test_alpha_reads_the_spectra_of_the_base_for_its_allocation(recipe: Recipe, tables: Path, tmp_path: Path) -> None:
    run = train_run(with_parts(recipe, "single", (2,), "rank_per_block"), tmp_path / "run", tables, CPU, silent)

    alphas = block_alphas(load_decoder(recipe.base.model, torch.float32), "hill_median")
    assert run.facts.adapter == block_counts("alpha", alphas[:3], 3, 12, 2.5)


def test_experts_are_trained_on_a_base_in_four_bits(recipe: Recipe, tables: Path, tmp_path: Path) -> None:
    four_bit = Base(model=recipe.base.model, quantisation="nf4", dtype="float32")
    changed = dataclasses.replace(with_parts(recipe, "multi", (2, 3), "experts"), base=four_bit)

    run = train_run(changed, tmp_path / "run", tables, CPU, silent)

    stored = load_file(run.adapter / "experts.safetensors")
    moved = [name for name, tensor in stored.items() if "experts_b" in name and tensor.abs().max() > 0]
    assert len(moved) == 3 * 7
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    assert all(-1 <= value.spearman <= 1 for value in rescored(run, tables).values())


@pytest.mark.parametrize(("strategy", "kind"), [("multi", "lora"), ("dynamic", "experts")])
def test_recomputing_activations_changes_no_result_with_several_taps(
    recipe: Recipe, tables: Path, tmp_path: Path, strategy: str, kind: str
) -> None:
    plain = with_parts(recipe, strategy, (1, 3), kind)
    plain = dataclasses.replace(plain, adapter=dataclasses.replace(plain.adapter, dropout=0.0))
    options = dataclasses.replace(plain.optimiser, share_prefix=False, gradient_checkpointing=True)

    shared = train_run(plain, tmp_path / "shared", tables, CPU, silent)
    other = train_run(dataclasses.replace(plain, optimiser=options), tmp_path / "whole", tables, CPU, silent)

    for pair, value in shared.facts.dev["pairs"].items():
        assert other.facts.dev["pairs"][pair]["mae"] == pytest.approx(value["mae"], rel=2e-3)
