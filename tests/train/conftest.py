"""A tiny random decoder and a tiny table of scored translations."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from qe_edge_train.recipe import Adapter, Base, DataFile, Evaluation, Head, Optimiser, Recipe, Target

WORDS = ("good", "bad", "fine", "poor", "great", "weak", "house", "tree", "river", "stone")
PROMPT = "{sl} {tl}: {src} = {mt}"
"""Short: a token is a byte, and the published prompt would be most of what the tests compute."""


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of 4 blocks (hidden 64, 8 heads on 4 key/value heads) and a byte tokenizer."""
    folder = tmp_path_factory.mktemp("base")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, **{letter: i + 1 for i, letter in enumerate(alphabet)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>").save_pretrained(folder)
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=512,
        initializer_range=0.1,
    )
    LlamaModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.tsv (48 rows of et-en and ne-en) and dev.tsv (24); the score counts the good words."""
    folder = tmp_path_factory.mktemp("tables")
    generator = random.Random(3)
    for name, rows in (("train", 48), ("dev", 24)):
        lines = ["lp\toriginal\ttranslation\tmean"]
        for number in range(rows):
            words = generator.choices(WORDS, k=generator.randint(2, 5))
            score = 100 * sum(word in ("good", "fine", "great") for word in words) / len(words)
            lines.append(f"{('et-en', 'ne-en')[number % 2]}\tsource {name} {number}\t{' '.join(words)}\t{score}")
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def recipe(tiny_base: Path) -> Recipe:
    """A recipe that trains the tiny decoder in float32 in a second."""
    return Recipe(
        name="tiny",
        base=Base(model=str(tiny_base), quantisation="none", dtype="float32"),
        head=Head(taps=(2,), layer_norm=True, bias=True, prompt=PROMPT, token_limit=400),
        adapter=Adapter(rank=4, alpha=8),
        target=Target(standardise=True, loss_weight=1.0),
        optimiser=Optimiser(epochs=2, batch_size=8, micro_batch_size=4, learning_rate=5e-3, schedule="linear"),
        evaluation=Evaluation(per_epoch=2),
        train=(DataFile("train.tsv"),),
        dev=(DataFile("dev.tsv"),),
    )
