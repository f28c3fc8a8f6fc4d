"""The recipes of the runs: the embedded one with few rows, or on a decoder with random weights."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from transformers import AutoConfig

from benchmarks.gpu.decoders import decoder_folder
from qe_edge_train.recipe import Base, DataFile, Recipe, load_recipe

EMBEDDED = Path(__file__).parents[2] / "recipes" / "embedded.toml"
TAP = 11
"""of the embedded bundle: 20 of 30 blocks of SmolLM2-135M, 18 of 28 in the 1.5B shape"""
SMALL_TAP = 2
"""of decoders that are not deeper than TAP"""


def embedded_on(options: Namespace, shape: str, quantised: bool) -> Recipe:
    """The embedded recipe on the decoder of a shape, for one epoch with one evaluation; its tables are still whole.

    quantised: the base in NF4 with double quantisation, for QLoRA.
    """
    folder = decoder_folder(options, shape)
    recipe = load_recipe(EMBEDDED)
    deep = AutoConfig.from_pretrained(folder).num_hidden_layers > TAP
    named = recipe.base.name if shape == "base" and not options.tiny else f"random-{shape}"
    return replace(
        recipe,
        name=f"gpu-{shape}",
        base=Base(str(folder), "nf4" if quantised else "none", "bfloat16", named, recipe.base.licence),
        head=replace(recipe.head, taps=(TAP if deep else SMALL_TAP,)),
        optimiser=replace(recipe.optimiser, epochs=1),
        evaluation=replace(recipe.evaluation, per_epoch=1, rows_per_pair=0),
    )


def first_rows(tables: tuple[DataFile, ...], rows: int) -> tuple[DataFile, ...]:
    """The same tables, of each the first rows only."""
    return tuple(replace(table, first_row=1, last_row=rows, rows=0) for table in tables)
