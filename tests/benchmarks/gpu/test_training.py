"""Both training loops run on a tiny decoder in 4 bits and see the same rows."""

from __future__ import annotations

import math
import random
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from benchmarks.gpu.decoders import SHAPES, make
from benchmarks.gpu.training import TRAIN
from benchmarks.gpu.training_case import LOOPS, Case, Loop, Trained
from qe_edge.bundle import EMBEDDED_BUNDLE, TOKENIZER_FILE
from qe_edge_train.recipe import load_recipe

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Namespace:
    """What a step is told in a rehearsal, with a tiny decoder and tables of a few rows."""
    folder = tmp_path_factory.mktemp("gpu")
    base, work, data = (folder / name for name in ("base", "work", "data"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(EMBEDDED_BUNDLE / TOKENIZER_FILE), bos_token="<|im_start|>", eos_token="<|im_end|>"
    )
    tokenizer.save_pretrained(base)
    (work / "decoders").mkdir(parents=True)
    make(SHAPES["tiny"], base, work / "decoders" / "tiny", CPU)
    data.mkdir()
    numbers = random.Random(1)
    recipe = load_recipe(repository / "recipes" / "embedded.toml")
    for table in (*recipe.train, *recipe.dev):
        rows = [f"source {number} {table.path}\ttranslation\t{numbers.uniform(0, 100)}" for number in range(6)]
        (data / table.path).write_text("\n".join(["original\ttranslation\tmean", *rows]) + "\n", encoding="utf-8")
    return Namespace(base=base, work=work, data=data, tiny=True, device="cpu")


@pytest.fixture(scope="module")
def trained(options: Namespace) -> dict[Loop, Trained]:
    """Both loops on two rows of each of seven tables, two rows a step, timed from the first step on."""
    cases = [Case(loop, "base", batch=2, paged=False, warm_up=0, steps=7) for loop in LOOPS]
    return {case.loop: TRAIN[case.loop](options, case, CPU) for case in cases}


def test_losses_are_finite_and_time_passes(trained: dict[Loop, Trained]) -> None:
    for figures in trained.values():
        assert math.isfinite(figures.first_loss)
        assert math.isfinite(figures.last_loss)
        assert figures.seconds > 0
        assert figures.peak_bytes > 0


def test_both_loops_train_on_the_same_rows(trained: dict[Loop, Trained]) -> None:
    ours, plain = trained["qe-edge"], trained["plain"]

    assert (ours.rows, ours.steps) == (plain.rows, plain.steps) == (14, 7)
    assert ours.tokens == pytest.approx(plain.tokens, rel=0.1)  # texts are tokenised apart from the words around them


@pytest.mark.parametrize("loop", ["qe-edge", "plain"])
def test_activations_can_be_recomputed(options: Namespace, loop: Loop) -> None:
    case = Case(loop, "base", batch=2, checkpointing=True, paged=False, warm_up=1, steps=2)

    figures = TRAIN[loop](options, case, CPU)

    assert math.isfinite(figures.last_loss)
    assert figures.rows == 2 * figures.steps
