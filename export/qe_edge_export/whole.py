"""The whole base with a run's adapter in its weights, as a folder that transformers loads."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from qe_edge.errors import OutputError
from qe_edge_export.merge import check_mergeable, merged_decoder
from qe_edge_train.build import base_facts
from qe_edge_train.decoder import load_decoder
from qe_edge_train.output import check_new_folder, new_folder
from qe_edge_train.run import open_run


def write_merged(run_folder: Path, out: Path) -> None:
    """Write the run's base to `out`, uncut, with the adapter merged into the blocks that the run kept.

    The weights have the type of the recipe's `[base] dtype`, of a 4-bit base too: blocks that were trained against
    dequantised values hold those. Blocks above the cut are the base's own. `out` can be `[base] model` of another
    recipe. Raises OutputError when something is there or the folder cannot be written, UsageError for an adapter that
    cannot be merged or a base that cannot be loaded, and InputError when the run is not whole.
    """
    if os.path.lexists(out):
        raise OutputError(f"{out}: is there already, and is never overwritten; give another -o or delete it")
    check_new_folder(out)
    run = open_run(run_folder)
    check_mergeable(run)
    base = run.recipe.base
    base_facts(base)  # refuses a base without its configuration or tokenizer
    merged = merged_decoder(run)
    whole = load_decoder(base.model, getattr(torch, base.dtype))
    tokenizer = AutoTokenizer.from_pretrained(base.model)
    found = whole.load_state_dict(merged.state_dict(), strict=False)  # the blocks above the cut are not among them
    assert not found.unexpected_keys, found.unexpected_keys
    with new_folder(out) as part:
        whole.save_pretrained(part)
        _save_tokenizer(tokenizer, part)
        for path in part.iterdir():  # safetensors' files are private
            path.chmod(0o755 if path.is_dir() else 0o644)


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:
        if type(error) is Exception:  # the Rust library raises it plain for a full disk
            raise OSError(str(error)) from None
        raise
