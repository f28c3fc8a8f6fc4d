"""Task and alignment in turn, alignment alone, and what is refused before either begins."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from qe_edge.errors import InputError
from qe_edge_train.alignment.contrastive import alignment_loss
from qe_edge_train.loop import Trainer
from qe_edge_train.objectives import AlignmentObjective, TaskObjective
from qe_edge_train.objectives import alignment as alignment_module
from qe_edge_train.recipe import Adapter, Alignment, Head, ParallelText, Recipe
from qe_edge_train.run import open_run
from qe_edge_train.session import align_run, parallel_sets, train_run
from qe_edge_train.summary import summary_table

CPU = torch.device("cpu")
TEXTS = (ParallelText("text.en", "en"), ParallelText("text.et", "et"))
WORDS = {"house": "maja", "tree": "puu", "river": "jogi", "stone": "kivi", "sun": "paike", "hand": "kasi"}


def silent(line: str) -> None:
    """Progress nobody reads."""


def stop_at_second_evaluation() -> Any:
    said: list[str] = []

    def report(line: str) -> None:
        said.extend([line] if line.startswith("dev at step") else [])
        if len(said) == 2:
            raise KeyboardInterrupt

    return report


@pytest.fixture
def data(tables: Path, tmp_path: Path) -> Path:
    """The tables, and 60 lines in two languages, word by word."""
    folder = tmp_path / "data"
    folder.mkdir()
    for table in tables.iterdir():
        (folder / table.name).symlink_to(table)
    generator = random.Random(4)
    lines = [generator.sample(sorted(WORDS), 3) for _ in range(60)]
    (folder / "text.en").write_text("".join(" ".join(line) + "\n" for line in lines), encoding="utf-8")
    translated = (" ".join(WORDS[word] for word in line) for line in lines)
    (folder / "text.et").write_text("".join(line + "\n" for line in translated), encoding="utf-8")
    return folder


@pytest.fixture
def joint(recipe: Recipe) -> Recipe:
    """Three blocks kept, the second aligned; 12 steps on the task and 12 on the parallel texts. Saved at every step."""
    alignment = Alignment(layer=2, pairs_per_batch=8, held_out=12, token_limit=40, texts=TEXTS)
    adapter = dataclasses.replace(recipe.adapter, dropout=0.1)
    evaluation = dataclasses.replace(recipe.evaluation, checkpoint_minutes=0.0)
    return dataclasses.replace(recipe, alignment=alignment, adapter=adapter, evaluation=evaluation)


def parts(trainer: Trainer) -> dict[str, Tensor]:
    """Every trained parameter, named by the block it is in, or head."""
    assert trainer.head is not None
    named = {
        f"block {name.split('layers.')[1][0]}, {name}": parameter.detach().clone()
        for name, parameter in trainer.decoder.named_parameters()
        if parameter.requires_grad
    }
    return {**named, **{f"head, {name}": p.detach().clone() for name, p in trainer.head.named_parameters()}}


def test_every_step_optimises_one_loss_and_moves_only_what_it_reaches(
    joint: Recipe, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []
    steps: list[tuple[list[str], set[str]]] = []
    step, task, loss = Trainer._step, TaskObjective.run, alignment_loss

    def watched_step(self: Trainer, writer: Any) -> None:
        computed.clear()
        before = parts(self)
        step(self, writer)
        moved = {name.split(",")[0] for name, value in parts(self).items() if not torch.equal(value, before[name])}
        steps.append((computed.copy(), moved))

    def watched_task(self: TaskObjective, number: int) -> Any:
        computed.append(f"task {number}")
        return task(self, number)

    def watched_loss(*arguments: Any) -> Tensor:
        computed.append("alignment")
        return loss(*arguments)

    monkeypatch.setattr(Trainer, "_step", watched_step)
    monkeypatch.setattr(TaskObjective, "run", watched_task)
    monkeypatch.setattr(alignment_module, "alignment_loss", watched_loss)

    run = train_run(joint, tmp_path / "run", data, CPU, silent)

    assert len(steps) == 24
    for number, (losses, moved) in enumerate(steps):
        if number % 2 == 0:
            assert losses == [f"task {number // 2}"]
            assert moved == {"block 0", "block 1", "block 2", "head"}
        else:
            assert losses == ["alignment"]
            assert moved == {"block 0", "block 1"}
    records = [json.loads(line) for line in (run.folder / "history.jsonl").read_text().splitlines()]
    assert {"task", "alignment"} == next(record["loss"].keys() for record in records if "loss" in record)
    assert [file["path"] for file in run.facts.data] == ["train.tsv", "dev.tsv", "text.en", "text.et"]
    assert all(len(str(file["sha256"])) == 64 for file in run.facts.data)


def test_the_nth_alignment_step_is_the_nth_batch_of_pairs(
    joint: Recipe, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: list[int] = []
    run = AlignmentObjective.run

    def watched(self: AlignmentObjective, number: int) -> Any:
        numbers.append(number)
        return run(self, number)

    monkeypatch.setattr(AlignmentObjective, "run", watched)

    train_run(joint, tmp_path / "run", data, CPU, silent)

    assert numbers == list(range(12))


@pytest.mark.parametrize("kind", ["lora", "experts"])
def test_interrupted_joint_training_ends_where_an_uninterrupted_one_does(
    joint: Recipe, data: Path, tmp_path: Path, kind: str
) -> None:
    if kind == "experts":
        joint = dataclasses.replace(joint, adapter=Adapter(kind="experts", rank=2, alpha=4, experts=2.0, dropout=0.1))
    whole = train_run(joint, tmp_path / "whole", data, CPU, silent)
    folder = tmp_path / "stopped"
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        train_run(joint, folder, data, CPU, stop_at_second_evaluation())

    run = train_run(joint, folder, data, CPU, said.append)

    # the second evaluation is after step 12, before its checkpoint: the next step is one on the alignment
    assert "resumed at step 11 of 24" in said
    assert run.facts.best_step == whole.facts.best_step
    assert run.facts.dev == whole.facts.dev
    files = [path.relative_to(folder) for path in folder.rglob("*.safetensors")]
    assert len(files) == 2
    for file in files:
        expected = load_file(whole.folder / file)
        for name, tensor in load_file(folder / file).items():
            torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=0)


def test_alignment_alone_writes_a_run_without_a_head_and_finds_more_translations(
    joint: Recipe, data: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    options = dataclasses.replace(joint.alignment, steps=60, pairs_per_batch=16)  # type: ignore[type-var]
    alone = dataclasses.replace(joint, alignment=options, train=(), dev=(), head=Head(taps=(1,)))

    run = align_run(alone, tmp_path / "run", data, CPU, said.append)

    before = float(next(line for line in said if line.startswith("before: ")).split()[3])
    after = run.facts.dev["retrieval_accuracy"]
    assert after > before + 0.1
    assert (run.facts.head, run.facts.blocks_kept, run.facts.dev["lines"], run.facts.dev["layer"]) == (None, 2, 12, 2)
    assert open_run(run.folder) == run
    assert not (run.folder / "head.safetensors").exists()
    assert {name.split("layers.")[1][0] for name in load_file(run.adapter / "adapter_model.safetensors")} == {"0", "1"}
    with pytest.raises(InputError, match=r"this run only aligns languages and has no head; train one with a task"):
        run.head()
    assert f"retrieval accuracy at layer 2, 12 held-out lines, all directions: {after:.3f}" in summary_table(run)


def test_interrupted_alignment_ends_where_an_uninterrupted_one_does(joint: Recipe, data: Path, tmp_path: Path) -> None:
    whole = align_run(joint, tmp_path / "whole", data, CPU, silent)
    with pytest.raises(KeyboardInterrupt):
        align_run(joint, tmp_path / "stopped", data, CPU, stop_at_second_evaluation())

    run = align_run(joint, tmp_path / "stopped", data, CPU, silent)

    assert run.facts.dev == whole.facts.dev
    expected = load_file(whole.adapter / "adapter_model.safetensors")
    for name, tensor in load_file(run.adapter / "adapter_model.safetensors").items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=0)


def changed(joint: Recipe, **options: Any) -> Recipe:
    assert joint.alignment is not None
    return dataclasses.replace(joint, alignment=dataclasses.replace(joint.alignment, **options))


ONE, TWO = TEXTS
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no such layer": ({"layer": 4}, r"\[alignment\] layer = 4: a base of 4 blocks has un-normed layers 1 to 3"),
    "empty file": ({"texts": (ONE, ParallelText("empty.et", "et"))}, r"empty\.et: is empty"),
    "no file": ({"texts": (ONE, ParallelText("none.et", "et"))}, r"none\.et: no such file"),
    "unequal": ({"texts": (ONE, ParallelText("short.et", "et"))}, r"short\.et: 59 lines, but .*text\.en has 60"),
    "one language": ({"texts": (ONE,)}, r"1 of them; at least two languages are needed"),
    "no texts": ({"texts": ()}, r"0 of them; at least two languages are needed"),
    "too few lines": ({"pairs_per_batch": 50}, r"pairs_per_batch = 50, but the parallel texts have 48 whole lines"),
    "all held out": ({"held_out": 60}, r"\[alignment\] held_out = 60: there are 60 lines from line 1; lower it"),
    "beyond the end": ({"lines": 61}, r"has 60 lines, not lines 1 to 61"),
    "pivot": ({"pivot": "ne"}, r"pivot 'ne' is not a language of the parallel texts \(en, et\)"),
}


@pytest.mark.parametrize("session", [train_run, align_run])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_parallel_texts_that_cannot_be_used_end_in_one_line(
    joint: Recipe, data: Path, tmp_path: Path, session: Any, mistake: str
) -> None:
    (data / "empty.et").write_text("\n\n", encoding="utf-8")
    (data / "short.et").write_text("x\n" * 59, encoding="utf-8")
    options, expected = MISTAKES[mistake]

    with pytest.raises(InputError, match=expected) as caught:
        session(changed(joint, **options), tmp_path / "run", data, CPU, silent)

    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_layer_that_the_taps_cut_off_is_refused(joint: Recipe, data: Path, tmp_path: Path) -> None:
    high = dataclasses.replace(changed(joint, layer=3), head=dataclasses.replace(joint.head, taps=(3,)))

    with pytest.raises(InputError, match=r"layer = 3: the taps keep 2 of 4 blocks, so hidden_states\[2\] is the last"):
        train_run(high, tmp_path / "run", data, CPU, silent)

    assert not (tmp_path / "run").exists()


def test_alignment_without_an_adapter_is_refused(joint: Recipe) -> None:
    with pytest.raises(InputError, match=r"kind = 'none' leaves nothing to align"):
        dataclasses.replace(joint, adapter=Adapter(kind="none"))


def test_training_needs_no_lines_held_out_and_alignment_says_how_many_there_are(
    joint: Recipe, data: Path, tmp_path: Path
) -> None:
    every = changed(joint, lines=60, held_out=200)

    assert every.alignment is not None
    assert len(parallel_sets(every.alignment, data, measured=False)[0]) == 60
    with pytest.raises(InputError, match=r"held_out = 200: 0 lines follow those trained on; lower it, or lines"):
        align_run(every, tmp_path / "run", data, CPU, silent)


def test_alignment_alone_needs_its_table_and_lines_to_choose_by(joint: Recipe, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing to align: add an \[alignment\] table"):
        align_run(dataclasses.replace(joint, alignment=None), tmp_path / "run", data, CPU, silent)
    with pytest.raises(InputError, match=r"held_out = 0: lines are needed that choose the best checkpoint"):
        align_run(changed(joint, held_out=0), tmp_path / "run", data, CPU, silent)

    assert not (tmp_path / "run").exists()
