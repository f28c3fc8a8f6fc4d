"""The merged base as a folder: whole, loadable, and scoring as the run does when it is cut again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from qe_edge.cli import main
from qe_edge.errors import OutputError, UsageError
from qe_edge_export.merge import merged_decoder
from qe_edge_export.whole import write_merged
from qe_edge_train.build import load_cut_decoder
from qe_edge_train.decoder import blocks
from qe_edge_train.recipe import Adapter
from qe_edge_train.run import Run
from tests.conftest import largest_file

CPU = torch.device("cpu")


@pytest.mark.parametrize("quantisation", ["none", "nf4"])
def test_cut_again_the_folder_holds_the_blocks_of_the_run(
    tiny_run: Callable[[str], Run], tmp_path: Path, quantisation: str
) -> None:
    run = tiny_run(quantisation)

    write_merged(run.folder, tmp_path / "whole")

    base = replace(run.recipe.base, model=str(tmp_path / "whole"), quantisation="none")
    merged, loaded = blocks(merged_decoder(run)), blocks(load_cut_decoder(base, 2, CPU))
    for name, weight in merged.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], weight, atol=0, rtol=0)


def test_blocks_above_the_cut_embedding_and_norm_are_the_base_s_own(
    tiny_run: Callable[[str], Run], tmp_path: Path
) -> None:
    run = tiny_run("none")
    before = AutoModel.from_pretrained(run.recipe.base.model).state_dict()

    write_merged(run.folder, tmp_path / "whole")

    after = AutoModel.from_pretrained(tmp_path / "whole").state_dict()
    assert after.keys() == before.keys()
    changed = {name.split(".")[1] for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"0", "1"}


def test_what_an_adapter_has_outside_of_the_blocks_is_merged_too(
    tiny_run: Callable[[str], Run], tmp_path: Path
) -> None:
    """As an adapter that was trained with peft elsewhere, with an embedding of its own."""
    run = tiny_run("none")
    config = LoraConfig(
        target_modules=["q_proj"],
        layers_to_transform=[0, 1],
        layers_pattern="layers",
        modules_to_save=["embed_tokens"],
    )
    adapted = get_peft_model(load_cut_decoder(run.recipe.base, 2, CPU), config)
    for weight in adapted.parameters():
        if weight.requires_grad:
            weight.data += 0.1
    shutil.rmtree(run.adapter)
    adapted.save_pretrained(str(run.adapter))

    write_merged(run.folder, tmp_path / "whole")

    after = AutoModel.from_pretrained(tmp_path / "whole").state_dict()
    for name, weight in merged_decoder(run).state_dict().items():
        torch.testing.assert_close(after[name], weight, atol=0, rtol=0)


def test_the_folder_has_the_tokenizer_and_is_readable_by_all(tiny_run: Callable[[str], Run], tmp_path: Path) -> None:
    run = tiny_run("none")

    write_merged(run.folder, tmp_path / "whole")

    ours, base = (AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "whole", run.recipe.base.model))
    assert ours("a b c")["input_ids"] == base("a b c")["input_ids"]
    assert (tmp_path / "whole").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "whole" / "model.safetensors").stat().st_mode & 0o777 == 0o644
    assert {path.name for path in tmp_path.iterdir()} == {"whole"}


def test_a_run_without_a_head_is_merged_too(tiny_run: Callable[[str], Run], tmp_path: Path) -> None:
    run = tiny_run("none")
    facts = run.folder / "run.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"head": None}))
    (run.folder / "head.safetensors").unlink()

    write_merged(run.folder, tmp_path / "whole")

    assert (tmp_path / "whole" / "model.safetensors").is_file()


def test_a_disk_that_is_full_costs_one_line_and_leaves_nothing(
    tiny_run: Callable[[str], Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run("none")

    with largest_file(1 << 14):
        code = main(["merge", str(run.folder), "-o", str(tmp_path / "whole")])

    said = capsys.readouterr().err
    assert code == 5, said
    assert said.startswith(f"qe-edge: error: {tmp_path / 'whole'}: cannot be written: ")
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays(tiny_run: Callable[[str], Run], tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()

    with pytest.raises(OutputError, match="is there already"):
        write_merged(tiny_run("none").folder, tmp_path / "whole")


def test_a_place_that_cannot_be_written_is_found_before_the_run_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and granted(path, mode))

    with pytest.raises(OutputError, match="allows no new files; give another -o"):
        write_merged(tmp_path / "no-run", tmp_path / "whole")


def test_a_tokenizer_that_does_not_fit_on_the_disk_is_one_line(
    tiny_run: Callable[[str], Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run("none")

    def full(self: PreTrainedTokenizerBase, folder: Path, **_: object) -> None:
        self.backend_tokenizer.save("/dev/full")

    monkeypatch.setattr(PreTrainedTokenizerBase, "save_pretrained", full)

    with pytest.raises(OutputError, match=r"whole: cannot be written: No space left on device"):
        write_merged(run.folder, tmp_path / "whole")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tiny_run: Callable[[str], Run], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError, match="cannot be written"):
        write_merged(tiny_run("none").folder, tmp_path / "file" / "whole")


def test_routed_experts_are_refused(tiny_run: Callable[..., Run], tmp_path: Path) -> None:
    run = tiny_run("none", adapter=Adapter(kind="experts", rank=4, alpha=8))

    with pytest.raises(UsageError, match="cannot be merged"):
        write_merged(run.folder, tmp_path / "whole")


def test_the_command_says_what_it_wrote(tiny_run: Callable[[str], Run], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "qe_edge", "merge", str(tiny_run("none").folder), "-o", str(tmp_path / "whole")]

    result = subprocess.run(command, capture_output=True, text=True, check=True)

    assert result.stderr.startswith(f"{tmp_path / 'whole'}: ")
    assert (tmp_path / "whole" / "model.safetensors").is_file()
