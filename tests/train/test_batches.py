"""Batches: every row once, one language pair each, little padding, the same plan for the same seed."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from qe_edge.prompt import Prompt
from qe_edge.tokens import PromptEncoder
from qe_edge_train.batches import EncodedSet, collate, encode, plan_epoch, sorted_batches
from qe_edge_train.data import ALL, Example

ET, NE = ("Estonian", "English"), ("Nepali", "English")


@pytest.fixture
def data() -> EncodedSet:
    examples = [
        Example("et-en" if i % 3 else "ne-en", ET if i % 3 else NE, (f"s{i}", f"t{i}"), float(i)) for i in range(50)
    ]
    bodies = [[5] * (1 + (7 * i) % 13) for i in range(50)]
    return EncodedSet(examples, bodies, {ET: [1, 2, 3], NE: [4, 5]})


def test_an_epoch_visits_every_row_exactly_once(data: EncodedSet) -> None:
    steps = plan_epoch(data, batch_size=8, micro_batch_size=4, seed=1, epoch=0)

    assert sorted(i for step in steps for rows in step for i in rows) == list(range(50))


def test_a_micro_batch_holds_one_language_pair_and_a_step_its_share(data: EncodedSet) -> None:
    steps = plan_epoch(data, batch_size=8, micro_batch_size=4, seed=1, epoch=0)

    assert all(len({data.examples[i].pair for i in rows}) == 1 for step in steps for rows in step)
    assert all(len(step) <= 2 and all(len(rows) <= 4 for rows in step) for step in steps)


def test_the_plan_depends_on_seed_and_epoch_alone(data: EncodedSet) -> None:
    plan = plan_epoch(data, 8, 4, seed=1, epoch=0)

    assert plan == plan_epoch(data, 8, 4, seed=1, epoch=0)
    assert plan != plan_epoch(data, 8, 4, seed=2, epoch=0)
    assert plan != plan_epoch(data, 8, 4, seed=1, epoch=1)


def test_micro_batches_are_grouped_by_length(data: EncodedSet) -> None:
    plan = plan_epoch(data, 8, 4, seed=1, epoch=0)
    lengths = [[len(data.bodies[i]) for i in rows] for step in plan for rows in step]

    padded = sum(max(rows) * len(rows) for rows in lengths)
    assert padded < 1.35 * sum(map(sum, lengths))


def test_padding_is_on_the_right_and_last_points_at_the_last_real_token(data: EncodedSet) -> None:
    batch = collate(data, [0, 3], torch.device("cpu"))  # bodies of 1 and 1 + 21 % 13 = 9 tokens

    assert batch.prefix.tolist() == [[4, 5]]
    assert batch.tokens.shape == (2, 16)
    assert batch.tokens[0].tolist() == [5] + [0] * 15
    assert batch.last.tolist() == [0, 8]


def test_without_a_shared_prefix_every_row_carries_it(data: EncodedSet) -> None:
    batch = collate(data, [0], torch.device("cpu"), share_prefix=False)

    assert batch.prefix.shape == (1, 0)
    assert batch.tokens.tolist() == [[4, 5, 5] + [0] * 13]


def test_scoring_batches_cover_the_requested_rows_by_pair(data: EncodedSet) -> None:
    batches = list(sorted_batches(data, [0, 1, 2, 3, 4], 2))

    assert sorted(i for rows in batches for i in rows) == [0, 1, 2, 3, 4]
    assert [[data.examples[i].pair for i in rows] for rows in batches] == [["ne-en"] * 2, ["et-en"] * 2, ["et-en"]]


def test_texts_without_languages_are_one_group_after_a_prefix_that_may_be_empty() -> None:
    tokenizer = Tokenizer(models.WordLevel({"?": 0, "a": 1, "b": 2, ".": 3}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    examples = [Example(ALL, ("", ""), ("a b",), 1.0), Example(ALL, ("", ""), ("b",), 2.0)]

    data = encode(examples, PromptEncoder(tokenizer, Prompt("{text} ."), None, 10))
    batch = collate(data, [0, 1], torch.device("cpu"))

    assert data.pairs == [ALL]
    assert batch.prefix.shape == (1, 0)
    assert batch.tokens[:, :4].tolist() == [[1, 2, 3, 0], [2, 3, 0, 0]]
    assert batch.last.tolist() == [2, 1]
