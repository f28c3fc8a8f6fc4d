"""The trained model as one plain decoder: the adapter merged into the weights that it was trained against."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from qe_edge.errors import InputError, UsageError
from qe_edge_train.build import load_cut_decoder
from qe_edge_train.run import HEAD_FILE, RECIPE_FILE, Run
from qe_edge_train.tapped import TappedRegressor


def merged_regressor(run: Run) -> TappedRegressor:
    """A run's cut decoder with its adapter merged, W + (alpha / rank) B A, and its head: float32, on the CPU.

    W is what the adapter saw in training: of a 4-bit base the dequantised NF4 values, which are another model than the
    original weights; of any other base its own values. The base's files are only read.

    Raises InputError for a run without its adapter or head, and UsageError when the base cannot be loaded.
    """
    for path in (run.adapter / SAFETENSORS_WEIGHTS_NAME, run.folder / HEAD_FILE):
        if not path.is_file():
            raise InputError(f"{path}: missing; the run folder is incomplete, copy it again or train again")
    with _quiet():
        try:
            decoder = load_cut_decoder(run.recipe.base, run.recipe.head.tap, torch.device("cpu"))
        except UsageError as error:
            raise UsageError(f"{error}, or say in {run.folder / RECIPE_FILE} where it is") from None
        if run.recipe.base.quantisation == "nf4":
            # 4-bit maps compute with values in the type of the matrix products; float32 holds them exactly
            decoder = decoder.dequantize(torch.float32)
        adapted = PeftModel.from_pretrained(decoder.float(), str(run.adapter))
    merged = adapted.merge_and_unload()
    assert isinstance(merged, PreTrainedModel)
    return TappedRegressor(merged, run.head()).requires_grad_(False).eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bar, its remark on the type of dequantised weights, and a deprecation of its own
    that peft runs into."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning
            )
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
