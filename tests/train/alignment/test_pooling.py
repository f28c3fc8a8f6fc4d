"""Sentence states: means over real tokens only, the same one by one and in batches, with and without gradient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, PreTrainedModel

from qe_edge.errors import InputError
from qe_edge_train.alignment import pooling
from qe_edge_train.alignment.pooling import encode_sentences, mean_pool, pooled, pooled_states
from qe_edge_train.build import base_facts
from qe_edge_train.decoder import load_decoder
from qe_edge_train.recipe import Base

CPU = torch.device("cpu")
SENTENCES = [[5, 9, 11], [7], [20, 21, 22, 23, 24, 25, 26], [3, 4], [8, 8, 8]]


@pytest.fixture(scope="module")
def decoder(tiny_base: Path) -> PreTrainedModel:
    return load_decoder(str(tiny_base), torch.float32)


@pytest.mark.parametrize("sentinel", [1e30, float("inf"), float("nan")])
def test_what_stands_in_the_padding_never_counts(sentinel: float) -> None:
    hidden = torch.tensor(
        [[[1.0, 2.0], [3.0, 6.0], [sentinel, sentinel]], [[5.0, 7.0], [sentinel, sentinel], [sentinel, sentinel]]],
        requires_grad=True,
    )

    pooled_rows = mean_pool(hidden, torch.tensor([2, 1]))
    pooled_rows.sum().backward()

    assert pooled_rows.tolist() == [[2.0, 4.0], [5.0, 7.0]]
    assert hidden.grad is not None
    assert hidden.grad[..., 0].tolist() == [[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]


def test_bos_is_no_token_of_the_sentence() -> None:
    hidden = torch.tensor([[[900.0], [3.0], [5.0]], [[900.0], [7.0], [float("nan")]]])

    assert mean_pool(hidden, torch.tensor([3, 2]), bos=True).tolist() == [[4.0], [7.0]]


def test_means_are_in_float32_under_autocast() -> None:
    hidden = torch.full((1, 3, 1), 1.0, dtype=torch.bfloat16)
    hidden[0, 1] = 1.0078125  # the next bfloat16: the mean lies between the two

    with torch.autocast("cpu", dtype=torch.bfloat16):
        mean = mean_pool(hidden, torch.tensor([3]))

    assert mean.dtype == torch.float32
    assert mean.item() == pytest.approx(1 + 0.0078125 / 3, abs=1e-6)


@pytest.mark.parametrize("batch_tokens", [4, 4096])
def test_states_are_the_means_of_transformers_own_hidden_states(
    decoder: PreTrainedModel, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, batch_tokens: int
) -> None:
    monkeypatch.setattr(pooling, "BATCH_TOKENS", batch_tokens)

    reference = AutoModel.from_pretrained(tiny_base, dtype=torch.float32)

    states = pooled_states(decoder, SENTENCES, [0, 2, 4], CPU)

    assert states.shape == (3, 5, 64)
    assert states.dtype == np.float32
    for row, ids in enumerate(SENTENCES):
        output = reference(input_ids=torch.tensor([ids]), output_hidden_states=True)
        for at, layer in enumerate([0, 2, 4]):
            mean = output.hidden_states[layer][0].mean(dim=0).detach().numpy()
            np.testing.assert_allclose(states[at, row], mean, atol=1e-5)


def test_the_differentiable_form_gives_the_same_states_and_a_gradient_to_the_blocks_below(
    decoder: PreTrainedModel,
) -> None:
    decoder.requires_grad_(True).zero_grad()

    states = pooled(decoder, SENTENCES, 2, CPU)
    states.square().sum().backward()

    np.testing.assert_allclose(states.detach().numpy(), pooled_states(decoder, SENTENCES, [2], CPU)[0], atol=1e-6)
    touched = {
        name.split(".")[1]
        for name, parameter in decoder.named_parameters()
        if name.startswith("layers.") and parameter.grad is not None and parameter.grad.abs().max() > 0
    }
    assert touched == {"0", "1"}


def test_bfloat16_is_used_on_request_only(decoder: PreTrainedModel) -> None:
    exact = pooled_states(decoder, SENTENCES, [3], CPU)
    coarse = pooled_states(decoder, SENTENCES, [3], CPU, bfloat16=True)

    difference = np.abs(coarse - exact).max()
    assert 1e-5 < difference < 0.05 * np.abs(exact).max()


def test_batches_hold_every_sentence_once_within_the_token_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "BATCH_TOKENS", 6)
    lengths = [3, 9, 1, 2, 3, 2]

    batches = list(pooling._batches(lengths))

    assert batches == [[2, 3, 5], [0, 4], [1]]  # a sentence longer than the budget is a batch of its own


def test_sentences_start_with_bos_are_cut_and_special_tokens_are_plain_text(tiny_base: Path) -> None:
    facts = base_facts(Base(model=str(tiny_base)))

    plain, cut, special = encode_sentences(facts.tokenizer, facts.bos, ["ab", "abcdef", "<s>"], 4)
    (without,) = encode_sentences(facts.tokenizer, None, ["ab"], 4)

    assert facts.bos == 0
    assert plain == [0, *without]
    assert len(cut) == 4
    assert cut[:3] == plain
    assert special[1:] != [0]
    assert len(special) == 4
    with pytest.raises(InputError, match="makes no token of the sentence ''"):
        encode_sentences(facts.tokenizer, 0, [""], 4)
