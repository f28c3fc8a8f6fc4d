"""The alignment objective: its loss is that of sentences run one by one, and nothing above the layer is touched."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

from qe_edge_train.alignment.parallel import ParallelSet
from qe_edge_train.build import base_facts, build_decoder
from qe_edge_train.objectives import AlignmentObjective
from qe_edge_train.objectives import alignment as module
from qe_edge_train.recipe import Alignment, Recipe
from qe_edge_train.tapped import hidden_states

CPU = torch.device("cpu")
COUNT = 6
COLUMNS = {
    "en": tuple(f"line {'very ' * i}{i}" for i in range(COUNT)),
    "et": tuple(f"rida {i}" for i in range(COUNT)),
    "ne": tuple(f"pankti {i} {'x' * i}" for i in range(COUNT)),
}
PARALLEL = ParallelSet(("en", "et", "ne"), COLUMNS, tuple(range(1, COUNT + 1)))


def objective(recipe: Recipe, layer: int, **options: object) -> AlignmentObjective:
    """On the base with all but its last block."""
    facts = base_facts(recipe.base)
    alignment = Alignment(layer=layer, pairs_per_batch=4, **options)  # type: ignore[arg-type]
    recipe = dataclasses.replace(recipe, alignment=alignment)
    decoder = build_decoder(recipe, facts, 3, [4] * 3, CPU)
    for name, weight in decoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return AlignmentObjective(recipe, decoder, layer, PARALLEL, facts.tokenizer, facts.bos, CPU)


def state(aligned: AlignmentObjective, tokenizer: Tokenizer, sentence: str, layer: int) -> Tensor:
    """Mean state [H] of a sentence alone, BOS left out; unit length."""
    ids = [0, *tokenizer.encode(sentence, add_special_tokens=False).ids]
    (hidden,) = hidden_states(aligned.decoder, torch.tensor([ids]), [layer])
    mean = hidden[0, 1:].mean(0)
    unit: Tensor = mean / mean.norm()
    return unit


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_loss_is_that_of_sentences_run_one_by_one(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, symmetric: bool
) -> None:
    monkeypatch.setattr(module, "SENTENCES_PER_PASS", 3)  # several passes, sorted by length, for one contrast
    aligned = objective(recipe, 2, symmetric=symmetric)
    tokenizer = base_facts(recipe.base).tokenizer

    step = aligned.run(5)

    pairs = aligned.sampler.batch(5)
    with torch.no_grad():
        sources = torch.stack([state(aligned, tokenizer, COLUMNS[pair.source][pair.line], 2) for pair in pairs])
        targets = torch.stack([state(aligned, tokenizer, COLUMNS[pair.target][pair.line], 2) for pair in pairs])
    logits = sources @ targets.T / 0.1
    expected = -logits.log_softmax(1).diagonal().mean()
    if symmetric:
        expected = (expected - logits.log_softmax(0).diagonal().mean()) / 2
    assert step.loss == pytest.approx(float(expected), rel=1e-4)
    sentences = [COLUMNS[language][pair.line] for pair in pairs for language in (pair.source, pair.target)]
    assert step.tokens == aligned.tokens(5) == sum(1 + len(sentence) for sentence in sentences)


def test_blocks_above_the_layer_are_neither_run_nor_moved(recipe: Recipe) -> None:
    aligned = objective(recipe, 2)
    ran: list[int] = []
    for number, block in enumerate(aligned.decoder.get_submodule("base_model.model.layers").children()):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))

    aligned.run(0)

    assert set(ran) == {0, 1}
    for name, parameter in aligned.decoder.named_parameters():
        if parameter.requires_grad:
            assert (parameter.grad is None) == (".layers.2." in name), name


def test_a_pass_over_the_pairs_counts_every_other_language(recipe: Recipe) -> None:
    # 6 lines in 2 languages beside the pivot are 12 pairs, 4 a step
    assert objective(recipe, 1).one_pass() == 3
