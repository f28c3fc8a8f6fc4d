"""The trained model as one plain decoder: the adapter merged into the weights that it was trained against."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from qe_edge.errors import UsageError
from qe_edge_train.adapters.lora import quiet_peft
from qe_edge_train.build import adapted_decoder
from qe_edge_train.run import RECIPE_FILE, Run
from qe_edge_train.tapped import TappedRegressor


def merged_regressor(run: Run) -> TappedRegressor:
    """A run's cut decoder with its LoRA merged (`merged_decoder`) and its head: float32, on the CPU.

    Raises as `merged_decoder` does, and InputError for a run without a head.
    """
    head = run.head()
    # nothing reads the other positions of the last block
    full = run.recipe.head.full_blocks or run.facts.blocks_kept - 1
    return TappedRegressor(merged_decoder(run), head, full).requires_grad_(False).eval()


def merged_decoder(run: Run) -> PreTrainedModel:
    """A run's cut decoder with its LoRA merged, W + (alpha / rank) B A: float32, on the CPU.

    W is what the adapter saw in training: of a 4-bit base the dequantised NF4 values, which are another model than the
    original weights; of any other base its own values. Routed experts stay as they are: which of them a token takes
    depends on the token, so no one matrix does the same. The base's files are only read.

    Raises InputError for a damaged adapter, and UsageError when the base cannot be loaded.
    """
    with _quiet():
        try:
            decoder = adapted_decoder(run, torch.device("cpu"), torch.float32)
        except UsageError as error:
            raise UsageError(f"{error}, or say in {run.folder / RECIPE_FILE} where it is") from None
        if isinstance(decoder, PeftModel):
            decoder = decoder.merge_and_unload()
    assert isinstance(decoder, PreTrainedModel)
    return decoder


def check_mergeable(run: Run) -> None:
    """Raise UsageError when the adapter of a run cannot be merged into the weights."""
    if run.recipe.adapter.kind == "experts":
        raise UsageError(
            f"{run.folder}: its adapter cannot be merged: it routes every token to experts of its own choice, so no "
            "single matrix does what it does; `qe-edge export` without --merge keeps router and experts in the graph"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bar and its remark on the type of dequantised weights."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with quiet_peft():
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
