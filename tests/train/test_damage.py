"""Damaged checkpoints, runs and bases: one line that names the file and the remedy."""

from __future__ import annotations

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qe_edge.errors import InputError, UsageError
from qe_edge_train.allocation.spectra import load_unquantised
from qe_edge_train.build import adapted_decoder, base_facts, load_cut_decoder
from qe_edge_train.merging.deltas import read_lora
from qe_edge_train.probe.subject import open_subject
from qe_edge_train.recipe import Adapter, Alignment, Base, DataFile, Evaluation, Head, ParallelText, Recipe
from qe_edge_train.run import Run, open_run
from qe_edge_train.session import align_run, train_run
from tests.train.conftest import PROMPT

CPU = torch.device("cpu")
AGAIN = "copy it again or train again"


def silent(line: str) -> None:
    """Progress nobody reads."""


@pytest.fixture(scope="module")
def finished(tiny_base: Path, tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = Recipe(
        base=Base(model=str(tiny_base), quantisation="none", dtype="float32"),
        head=Head(taps=(2,), prompt=PROMPT, token_limit=400),
        adapter=Adapter(rank=2),
        evaluation=Evaluation(per_epoch=1),
        train=(DataFile("train.tsv"),),
        dev=(DataFile("dev.tsv"),),
    )
    return train_run(recipe, tmp_path_factory.mktemp("finished") / "run", tables, CPU, silent)


@pytest.fixture
def copied(finished: Run, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    shutil.copytree(finished.folder, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def interrupted(recipe: Recipe, tables: Path, tmp_path: Path) -> Path:
    """The folder of a run of `recipe` that was stopped after its first checkpoint."""

    def stop(line: str) -> None:
        if (tmp_path / "run" / "checkpoint.pt").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(recipe, tmp_path / "run", tables, CPU, stop)
    return tmp_path / "run"


@pytest.mark.parametrize("content", [b"", b"garbage", b"cut"])
def test_a_damaged_checkpoint_is_named_and_stays(
    recipe: Recipe, tables: Path, interrupted: Path, content: bytes
) -> None:
    path = interrupted / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:5000] if content == b"cut" else content)
    before = {path: path.read_bytes() for path in interrupted.glob("*.*")}

    with pytest.raises(InputError, match=r"checkpoint\.pt: damaged \(.*\); delete it to start again") as caught:
        train_run(recipe, interrupted, tables, CPU, silent)

    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in interrupted.glob("*.*")} == before


def test_a_torn_last_line_of_the_history_is_dropped(recipe: Recipe, tables: Path, interrupted: Path) -> None:
    with (interrupted / "history.jsonl").open("ab") as stream:
        stream.write(b'{"step": 9, "lo')

    run = train_run(recipe, interrupted, tables, CPU, silent)

    lines = (run.folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted(steps)
    assert steps[-1] == 12


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("run.json", b'{"family": "ll', "damaged"),
        ("run.json", b'{"a": 1}', "damaged (no 'head')"),
        ("run.json", b"[]", "damaged"),
        ("tokenizer.json", None, "missing"),
        ("head.safetensors", None, "missing"),
        ("adapter/adapter_model.safetensors", None, "missing"),
    ],
)
def test_a_run_that_is_damaged_or_lacks_a_part_is_not_opened(
    copied: Path, name: str, content: bytes | None, said: str
) -> None:
    if content is None:
        (copied / name).unlink()
    else:
        (copied / name).write_bytes(content)

    with pytest.raises(InputError) as caught:
        open_subject(copied, None, CPU)

    named = copied / name if (copied / name).parent == copied else (copied / name).parent
    assert str(caught.value).startswith(f"{named}: {said}")
    assert str(caught.value).endswith(AGAIN)


def test_a_run_without_its_adapter_is_not_taken_for_its_base(copied: Path) -> None:
    shutil.rmtree(copied / "adapter")

    with pytest.raises(InputError, match=rf"adapter: missing; the run folder is incomplete, {AGAIN}"):
        open_subject(copied, None, CPU)


def test_damaged_heads_and_tokenizers_are_named(copied: Path) -> None:
    run = open_run(copied)
    (copied / "tokenizer.json").write_text("junk", encoding="utf-8")
    with pytest.raises(InputError, match=rf"tokenizer\.json: damaged \(.*\); {AGAIN}"):
        run.tokenizer()
    save_file({"shift": torch.zeros(3)}, copied / "head.safetensors")  # weights of something else
    with pytest.raises(InputError, match=rf"head\.safetensors: damaged \(.*\); {AGAIN}"):
        run.head()
    (copied / "head.safetensors").write_text("xx", encoding="utf-8")
    with pytest.raises(InputError, match=rf"head\.safetensors: damaged \(.*\); {AGAIN}"):
        run.head()


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_damaged_adapter_is_named(copied: Path, name: str) -> None:
    path = copied / "adapter" / name
    path.write_bytes(path.read_bytes()[:100])
    run = open_run(copied)

    for read in (partial(adapted_decoder, run, CPU), partial(read_lora, run.adapter)):
        with pytest.raises(InputError) as caught:
            read()
        assert str(caught.value).startswith(f"{path}: damaged (")
        assert str(caught.value).endswith(f"; {AGAIN}")


def test_an_adapter_that_lacks_half_of_a_map_is_not_merged(copied: Path) -> None:
    path = copied / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    del tensors["base_model.model.layers.0.mlp.up_proj.lora_B.weight"]
    save_file(tensors, path)

    with pytest.raises(InputError, match=r"adapter_model\.safetensors: damaged \(lacks .*lora_B\.weight, "):
        read_lora(copied / "adapter")


def test_a_run_that_only_aligns_has_no_task_to_probe(recipe: Recipe, tmp_path: Path) -> None:
    for language, word in (("en", "stone"), ("et", "kivi")):
        (tmp_path / f"{language}.txt").write_text("".join(f"{word} {n}\n" for n in range(40)), encoding="utf-8")
    texts = (ParallelText("en.txt", "en"), ParallelText("et.txt", "et"))
    alignment = Alignment(layer=2, pairs_per_batch=8, held_out=8, steps=2, texts=texts)
    bare = dataclasses.replace(recipe, train=(), dev=(), alignment=alignment)
    run = align_run(bare, tmp_path / "run", tmp_path, CPU, silent)

    with pytest.raises(InputError, match="run: has no task to probe"):
        open_subject(run.folder, None, CPU)


def cut_weights(base: Path) -> None:
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def configure(base: Path, key: str, value: int) -> None:
    path = base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), key: value}), encoding="utf-8")


@pytest.mark.parametrize("quantisation", ["none", "nf4"])
@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("", 0, "Error while deserializing header"),
        ("hidden_size", 32, r"embed_tokens\.weight is \[257, 64\], but its config\.json asks for \[257, 32\]"),
        ("vocab_size", 99, r"embed_tokens\.weight is \[257, 64\], but its config\.json asks for \[99, 64\]"),
        ("num_hidden_layers", 6, r"they lack layers\.4\.input_layernorm\.weight, which its config\.json asks for"),
    ],
)
def test_weights_that_are_damaged_or_do_not_fit_are_refused(
    tiny_base: Path, tmp_path: Path, quantisation: str, key: str, value: int, said: str
) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    if key:
        configure(base, key, value)
    else:
        cut_weights(base)
    options = Base(model=str(base), quantisation=quantisation, dtype="float32")  # type: ignore[arg-type]

    for load in (partial(load_cut_decoder, options, 2, CPU), partial(load_unquantised, str(base))):
        with pytest.raises(UsageError, match=rf"base '.*base': its weights cannot be loaded: {said}") as caught:
            load()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ['{"a": 1}', "junk", "{}"])
def test_a_damaged_tokenizer_of_a_base_is_refused(tiny_base: Path, tmp_path: Path, content: str) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    (base / "tokenizer.json").write_text(content, encoding="utf-8")

    with pytest.raises(UsageError, match=r"base '.*base': its tokenizer cannot be loaded: .*fetch it again"):
        base_facts(Base(model=str(base)))
