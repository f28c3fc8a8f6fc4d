"""Tiny random decoders of every supported family, and a tiny finished training run."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModel,
    CohereConfig,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from qe_edge.bundle import file_sha256
from qe_edge_export import export as whole
from qe_edge_export.graph import export_states
from qe_edge_export.merge import merged_regressor
from qe_edge_train import run as files
from qe_edge_train.adapters import add_adapter
from qe_edge_train.adapters.experts import add_experts
from qe_edge_train.build import base_facts, head_options, load_cut_decoder
from qe_edge_train.decoder import blocks, cut_decoder
from qe_edge_train.heads import HeadOptions, RegressionHead, Strategy
from qe_edge_train.recipe import Adapter, Base, DataFile, Head, Recipe
from qe_edge_train.run import Run, RunFacts, open_run
from qe_edge_train.tapped import TappedRegressor

SHAPE: dict[str, Any] = {
    "vocab_size": 90,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW = 24
"""Sliding window of the families that have one; the prompts of the tests stay inside."""
CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**SHAPE),
    "qwen2": lambda: Qwen2Config(**SHAPE),
    "qwen3": lambda: Qwen3Config(**SHAPE, head_dim=16),
    "gemma3_text": lambda: Gemma3TextConfig(
        **SHAPE,
        head_dim=16,
        query_pre_attn_scalar=10,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "mistral": lambda: MistralConfig(**SHAPE, sliding_window=WINDOW),
    "phi3": lambda: Phi3Config(
        **SHAPE, rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    ),
    "cohere": lambda: CohereConfig(**SHAPE, use_qk_norm=True),
}

WholeDecoder = Callable[[str, str], PreTrainedModel]
TinyRegressor = Callable[..., TappedRegressor]
CPU = torch.device("cpu")


def _whole(family: str, attention: str) -> PreTrainedModel:
    torch.manual_seed(5)
    decoder: PreTrainedModel = AutoModel.from_config(CONFIGS[family](), attn_implementation=attention).eval()
    for weight in decoder.parameters():
        # norms start at 1 or 0 and biases at 0: none may be mistaken for nothing
        weight.data += 0.1 * torch.randn_like(weight) if weight.ndim == 1 else 0.2 * torch.randn_like(weight)
    return decoder


@pytest.fixture(scope="session")
def whole_decoder() -> WholeDecoder:
    """(family, attention) -> the uncut decoder of 3 blocks, hidden 32, always with the same random weights."""
    return _whole


def random_head(options: HeadOptions) -> RegressionHead:
    """A head whose scores lie around 60 with a spread of about 10; nothing in it is as it starts."""
    head = RegressionHead(options)
    head.shift.fill_(60.0)
    head.scale.fill_(20.0)
    if head.mix is not None:
        with torch.no_grad():
            head.mix.theta.normal_()
            for change in head.mix.changes:
                change.normal_()
    return head


@pytest.fixture(scope="session")
def tiny_regressor() -> TinyRegressor:
    """(family, taps, strategy, expert counts) -> that decoder cut, with a random head and perhaps random experts."""

    def build(
        family: str, *taps: int, strategy: Strategy = "single", experts: Sequence[int] | None = None
    ) -> TappedRegressor:
        decoder = cut_decoder(_whole(family, "qe_edge"), min(taps))
        if experts is not None:
            add_experts(decoder, experts, rank=4, alpha=8, dropout=0.0)
            for name, weight in decoder.named_parameters():
                if "experts_b" in name:
                    torch.nn.init.normal_(weight, std=0.2)
        offsets = tuple(tap - min(taps) for tap in taps)
        head = random_head(HeadOptions(32, layer_norm=True, bias=True, strategy=strategy, offsets=offsets))
        return TappedRegressor(decoder, head).requires_grad_(False).eval()

    return build


WORDS = ("good", "bad", "fine", "poor", "great", "weak", "house", "tree", "river", "stone")


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.tsv (60 rows of et-en and ne-en) and dev.tsv (24)."""
    folder = tmp_path_factory.mktemp("tables")
    generator = random.Random(3)
    for name, rows in (("train", 60), ("dev", 24)):
        lines = ["lp\toriginal\ttranslation\tmean"]
        for number in range(rows):
            words = generator.choices(WORDS, k=generator.randint(2, 6))
            score = 100 * sum(word in ("good", "fine", "great") for word in words) / len(words)
            lines.append(f"{('et-en', 'ne-en')[number % 2]}\tsource {name} {number}\t{' '.join(words)}\t{score}")
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of 3 blocks (hidden 64, 4 heads on 2 key/value heads) and a byte tokenizer."""
    folder = tmp_path_factory.mktemp("tiny-base")
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
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.1,
        bos_token_id=0,
        eos_token_id=0,
    )
    LlamaModel(config).save_pretrained(folder)
    return folder


HEAD = Head(taps=(2,), layer_norm=True, bias=True, prompt="{sl} {tl}: {src} = {mt}", token_limit=120)
LORA = Adapter(rank=4, alpha=8)
COUNTS = {"lora": [4, 4, 4], "rank_per_block": [2, 6, 4], "experts": [1, 3, 2], "none": []}
"""By kind of adapter: what each block gets, as far as it is kept."""
TinyRun = Callable[..., Run]


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tables: Path) -> TinyRun:
    """(quantisation, head options, adapter options) -> a run folder as training leaves it, with a random adapter and
    head; without options a LoRA and one tap on 2 of 3 blocks."""

    def build(quantisation: Literal["nf4", "none"], head: Head = HEAD, adapter: Adapter = LORA) -> Run:
        folder = tmp_path_factory.mktemp("run")
        recipe = Recipe(
            name="tiny",
            base=Base(model=str(tiny_base), quantisation=quantisation, dtype="float32", licence="CC0-1.0"),
            head=head,
            adapter=adapter,
            train=(DataFile("train.tsv"),),
            dev=(DataFile("dev.tsv"),),
        )
        torch.manual_seed(11)
        plain = load_cut_decoder(recipe.base, min(head.taps), CPU)
        kept = len(blocks(plain))
        counts = COUNTS[adapter.kind][:kept]
        decoder = add_adapter(plain, adapter, counts)
        regression = random_head(head_options(head, base_facts(recipe.base)))
        for name, weight in decoder.named_parameters():
            if "lora_B" in name or "experts_b" in name:
                torch.nn.init.normal_(weight, std=0.1)
        files.save_recipe(folder, recipe)
        files.save_best(folder, decoder, regression)
        Tokenizer.from_file(str(tiny_base / "tokenizer.json")).save(str(folder / files.TOKENIZER_FILE))
        facts = RunFacts(
            family="llama",
            blocks_total=3,
            blocks_kept=kept,
            bos=0,
            head=regression.options,
            adapter=counts,
            trainable=1,
            language_pairs=["et-en", "ne-en"],
            data_folder=str(tables),
            data=[{"path": name, "sha256": file_sha256(tables / name)} for name in ("train.tsv", "dev.tsv")],
            environment={},
            best_step=1,
            dev={"macro_spearman": 0.5},
            summary={},
        )
        files.save_facts(folder, facts)
        return open_run(folder)

    return build


@pytest.fixture(scope="session")
def tiny_states(tiny_run: TinyRun) -> ir.Model:
    """The graph of `tiny_run("none")` up to the tapped state, to be cloned: torch takes seconds to export it."""
    return export_states(merged_regressor(tiny_run("none")))


@pytest.fixture
def exported_before(tiny_states: ir.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports of `tiny_run("none")` begin with the graph that is there already."""
    monkeypatch.setattr(whole, "export_states", lambda model: tiny_states.clone())
