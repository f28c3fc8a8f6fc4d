"""Last-token states of all layers: those that transformers gives for each row on its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaModel

from qe_edge.prompt import Prompt
from qe_edge_train.batches import encode
from qe_edge_train.build import base_facts, prompt_encoder
from qe_edge_train.data import load_examples
from qe_edge_train.decoder import load_decoder
from qe_edge_train.probe.states import last_token_states
from qe_edge_train.recipe import Recipe


@pytest.mark.parametrize("layers", [2, 4])
def test_states_are_those_of_each_prompt_alone_in_the_order_asked_for(
    recipe: Recipe, tables: Path, layers: int
) -> None:
    examples, _ = load_examples(recipe.dev, "mean", tables, 1, Prompt(recipe.head.prompt))
    data = encode(examples, prompt_encoder(base_facts(recipe.base), recipe.head))
    decoder = load_decoder(recipe.base.model, torch.float32)
    reference = LlamaModel.from_pretrained(recipe.base.model, attn_implementation="eager")
    rows = [20, 3, 7, 0, 11, 12]  # both pairs, not by length

    states = last_token_states(decoder, data, rows, layers, "float32", torch.device("cpu"))

    assert states.shape == (6, layers, 64)
    for row, state in zip(rows, states, strict=True):
        whole = [*data.prefixes[examples[row].names], *data.bodies[row]]
        with torch.no_grad():
            output = reference(torch.tensor([whole]), output_hidden_states=True)
        expected = torch.stack(output.hidden_states[1 : layers + 1])[:, 0, -1].numpy()
        np.testing.assert_allclose(state, expected, atol=2e-5)
