"""Retrieval accuracy at one layer of a base and of decoders trained from it, on the same parallel lines.

    python benchmarks/retrieval_of_runs.py ALIGNED_RUN --data FOLDER RUN [RUN ...]

The first run's recipe says which texts, lines held out and layer; the other runs need no [alignment] table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from qe_edge_train.build import adapted_decoder, aligned_layer, base_facts, load_cut_decoder
from qe_edge_train.run import Run, open_run
from qe_edge_train.selection import Retrieval
from qe_edge_train.session import parallel_sets

CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aligned", type=Path, help="a run with an [alignment] table")
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--data", type=Path, required=True, help="folder that the recipe's paths start from")
    arguments = parser.parse_args()
    first = open_run(arguments.aligned)
    recipe, facts = first.recipe, base_facts(first.recipe.base)
    assert recipe.alignment is not None, "the first run has no [alignment] table"
    layer = aligned_layer(recipe, facts)
    _, held_out, _ = parallel_sets(recipe.alignment, arguments.data)
    assert held_out is not None, "its recipe holds no lines out"

    def accuracy(decoder: nn.Module) -> str:
        retrieval = Retrieval(recipe, decoder, layer, held_out, facts.tokenizer, facts.bos, CPU)
        record = retrieval.measure(whole=True).record
        low, high = record["interval"]
        return f"{record['retrieval_accuracy']:.3f} [{low:.3f}, {high:.3f}]"

    print(f"layer {layer}, {len(held_out)} lines, {' '.join(held_out.languages)}")
    print(f"{accuracy(load_cut_decoder(recipe.base, facts.blocks - layer, CPU))}  base")
    runs: list[Run] = [first, *map(open_run, arguments.runs)]
    for run in runs:
        print(f"{accuracy(adapted_decoder(run, CPU))}  {run.folder.name}", flush=True)


if __name__ == "__main__":
    main()
