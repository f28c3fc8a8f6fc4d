"""Dev Spearman of a closed-form head on every layer of a frozen base: which tap is worth training?

For every language pair and layer, a ridge regression from the last token's hidden state (ALOPE prompt) to the DA score
is fitted on training rows and measured on dev rows. One forward pass serves all layers.

    python benchmarks/tap_curve.py --base FOLDER --data FOLDER -o docs/tap-curve.csv
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig

from qe_edge.metrics import FloatArray, spearman
from qe_edge_train.batches import collate, encode, sorted_batches
from qe_edge_train.build import base_facts, prompt_encoder
from qe_edge_train.data import load_examples
from qe_edge_train.evaluate import dev_sample
from qe_edge_train.recipe import Base, DataFile, Head
from qe_edge_train.tapped import load_decoder

PAIRS = {
    "et-en": "eten",
    "ro-en": "roen",
    "ru-en": "ruen",
    "ne-en": "neen",
    "si-en": "sien",
    "en-de": "ende",
    "en-zh": "enzh",
}
STRENGTHS = (10.0, 100.0, 1000.0, 10000.0)
"""ridge penalties on standardised features; chosen on the last fifth of the training rows"""


def layer_states(
    base: Base, files: list[DataFile], folder: Path, rows: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Last-token states [rows, N + 1, H] of all layers, and DA scores [rows]."""
    facts = base_facts(base)
    examples, _ = load_examples(files, "mean", folder, seed=1)
    data = encode(examples, prompt_encoder(facts, Head()))
    chosen = dev_sample(data, rows, seed=1)
    decoder = load_decoder(base.model, torch.bfloat16).eval()
    states: dict[int, NDArray[np.float32]] = {}
    with torch.inference_mode():
        for indices in sorted_batches(data, chosen, 16):
            batch = collate(data, indices, torch.device("cpu"), share_prefix=False)
            seen = torch.ones(batch.tokens.shape[1], batch.tokens.shape[1], dtype=torch.bool).tril()[None, None]
            output = decoder(batch.tokens, attention_mask=seen, output_hidden_states=True, use_cache=False)
            picked = [layer[torch.arange(len(indices)), batch.last].float() for layer in output.hidden_states]
            states.update(zip(indices, torch.stack(picked, 1).numpy(), strict=True))
    return np.stack([states[i] for i in chosen]), np.array([data.examples[i].score for i in chosen])


def ridge(train: FloatArray, target: FloatArray, test: FloatArray, strength: float) -> FloatArray:
    """Predictions [m] for test features [m, H] of a ridge regression on standardised train features [n, H]."""
    mean, deviation = train.mean(0), train.std(0) + 1e-6
    x, z = (train - mean) / deviation, (test - mean) / deviation
    weights = x.T @ np.linalg.solve(x @ x.T + strength * np.eye(len(x)), target - target.mean())
    predicted: FloatArray = z @ weights + target.mean()
    return predicted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of MLQE-PE")
    parser.add_argument("--train-rows", type=int, default=600, help="per pair")
    parser.add_argument("--dev-rows", type=int, default=400, help="per pair")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    base = Base(model=arguments.base, quantisation="none")
    blocks = AutoConfig.from_pretrained(arguments.base).num_hidden_layers

    curves: dict[str, list[float]] = {}
    for pair, code in PAIRS.items():
        x, y = layer_states(base, [DataFile(f"train.{code}.df.short.tsv", pair)], arguments.data, arguments.train_rows)
        z, human = layer_states(base, [DataFile(f"dev.{code}.df.short.tsv", pair)], arguments.data, arguments.dev_rows)
        held = len(y) // 5
        curves[pair] = []
        for layer in range(1, blocks + 1):
            features, dev = x[:, layer].astype(np.float64), z[:, layer].astype(np.float64)
            tried = {s: spearman(ridge(features[:-held], y[:-held], features[-held:], s), y[-held:]) for s in STRENGTHS}
            best = max(tried, key=lambda s: tried[s])
            curves[pair].append(spearman(ridge(features, y, dev, best), human))
        print(pair, " ".join(f"{value:.2f}" for value in curves[pair]), flush=True)
    with arguments.output.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["blocks_kept", "tap", *curves, "mean"])
        for layer in range(blocks):
            values = [curves[pair][layer] for pair in curves]
            writer.writerow(
                [layer + 1, f"TL-{blocks - layer}", *(f"{v:.4f}" for v in [*values, float(np.mean(values))])]
            )


if __name__ == "__main__":
    main()
