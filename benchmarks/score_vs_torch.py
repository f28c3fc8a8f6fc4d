"""End-to-end rows per second of `qe-edge score` against torch bf16 on the uncut base, in one run.

qe-edge: the whole command, process start, reading and writing included. Peer: transformers in bfloat16, all blocks,
whole prompts, batches of 16 sorted by length, only the forward pass timed. The two alternate; medians are compared.

    python benchmarks/score_vs_torch.py --base FOLDER --file test20.eten.df.short.tsv --lp et-en
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModel

from qe_edge.languages import english_name, parse_pair
from qe_edge.prompt import ALOPE_PROMPT
from qe_edge.table.table import open_table
from qe_edge.tokens import PromptEncoder

BATCH = 16


def prompts(file: Path, lp: str, base: Path) -> list[list[int]]:
    """Token ids of every row's whole prompt, sorted by length."""
    encoder = PromptEncoder(Tokenizer.from_file(str(base / "tokenizer.json")), ALOPE_PROMPT, 1, 1024)
    source, target = map(english_name, parse_pair(lp))
    with open_table(str(file), lp=lp) as table:
        rows = [item.row for item in table.items]
    bodies = encoder.bodies([((source, target), row.texts) for row in rows])
    prefix = encoder.fixed((source, target)).prefix
    return sorted((prefix + body.ids for body in bodies), key=len)


def time_torch(model: torch.nn.Module, rows: list[list[int]]) -> float:
    """Seconds for all rows, forward pass only."""
    started = time.perf_counter()
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            longest = len(batch[-1])
            tokens = torch.tensor([ids + [0] * (longest - len(ids)) for ids in batch])
            mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in batch])
            hidden = model(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
            hidden[torch.arange(len(batch)), mask.sum(1) - 1].float().sum().item()
    return time.perf_counter() - started


def time_qe_edge(file: Path, lp: str, bundle: str | None, output: Path) -> float:
    """Seconds for the whole command."""
    command = [
        sys.executable,
        "-m",
        "qe_edge",
        "score",
        str(file),
        "--lp",
        lp,
        "-o",
        str(output),
        "--device",
        "cpu",
        "-q",
    ]
    if bundle:
        command += ["--model", bundle]
    started = time.perf_counter()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="folder of the uncut base")
    parser.add_argument("--file", type=Path, required=True, help="TSV to score")
    parser.add_argument("--lp", required=True)
    parser.add_argument("--bundle", help="default: the embedded bundle")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    rows = prompts(arguments.file, arguments.lp, arguments.base)
    model = AutoModel.from_pretrained(arguments.base, dtype=torch.bfloat16).eval()
    time_torch(model, rows[:64])
    ours, peers = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.repeats):
            ours.append(time_qe_edge(arguments.file, arguments.lp, arguments.bundle, Path(folder) / "out.tsv"))
            peers.append(time_torch(model, rows))
    count = len(rows)
    fast, slow = count / statistics.median(ours), count / statistics.median(peers)
    print(f"{count} rows, {os.cpu_count()} CPUs, {arguments.repeats} alternating runs, medians")
    print(f"qe-edge score, whole command          {fast:7.1f} rows/s   {[round(t, 2) for t in ours]} s")
    print(f"torch bf16, uncut, batches of {BATCH}      {slow:7.1f} rows/s   {[round(t, 2) for t in peers]} s")
    print(f"ratio                                 {fast / slow:7.2f}")


if __name__ == "__main__":
    main()
