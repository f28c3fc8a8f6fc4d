"""The ways to score all rows that are timed against each other; one of them lives in a process of its own.

    qe-edge-fp16, qe-edge-int4   qe_edge.Scorer: cut decoder, shared prefix, ONNX Runtime
    transformers                 the uncut decoder in bfloat16, padded batches sorted by length, a padding mask
    transformers-flash           the same with flash attention
    transformers-compiled        the same through torch.compile
    onnxruntime                  the uncut decoder as torch's exporter leaves it, float16, whole prompts

A way is started with `python -m benchmarks.gpu.ways WAY`, loads, warms up and prints a line of JSON; then it scores all
rows once for every line that it reads, and prints what that took. Tokenising is in its time. The others than qe-edge
give the last token's state, without a head, and run with the token budget of a batch that suits them best.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModel, AutoTokenizer

from benchmarks.gpu.decoders import decoder_folder, linear_parameters
from benchmarks.gpu.plain_graph import plain_folder
from benchmarks.gpu.rows import TINY_ROWS, prompt_text, rows_of_test20
from benchmarks.gpu.step import made_bundle, parser, run, torch_device
from qe_edge import Row, Scorer
from qe_edge.bench.measure import seconds_on_graph
from qe_edge.bench.tune import fastest
from qe_edge.errors import InputError
from qe_edge.scoring.batching import length_sorted_batches
from qe_edge.scoring.graph import PROVIDERS, pad
from qe_edge.scoring.tuning import Tuning

TOKEN_LIMIT = 512
"""most tokens of a prompt, as in the embedded recipe"""
BUDGETS = (8192, 32_768, 131_072)
"""Padded tokens of a batch that are tried."""
TINY_BUDGETS = (512, 2048)
TUNED_ROWS = 2000
"""on which qe-edge's budgets are compared; its own rounds run with its default"""

Facts = dict[str, Any]
Forward = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
"""Token ids [B, S] padded on the right and positions of the last tokens [B] -> their states [B, H]."""


class Way(Protocol):
    """One way to score all rows."""

    def warm_up(self) -> Facts:
        """Run everything once, and choose what is to be chosen; what there is to say of it."""

    def score(self) -> Facts:
        """Score all rows once; `seconds`, and what else was measured."""


class QeEdge:
    """A bundle in a Scorer."""

    def __init__(self, options: Namespace, rows: Sequence[Row]) -> None:
        precision = options.way.removeprefix("qe-edge-")
        self.rows, self.budgets = rows, TINY_BUDGETS if options.tiny else BUDGETS
        self.scorer = Scorer.load(made_bundle(options, options.shape, precision), device=options.device)
        blocks = self.scorer.bundle.spec.blocks_kept
        self.jobs = list(self.scorer.jobs(list(dict.fromkeys(rows))))
        self.operations_per_token = 2 * linear_parameters(decoder_folder(options, options.shape), blocks)

    def warm_up(self) -> Facts:
        self.score()
        scorer, some = self.scorer, self.rows[:: -(-len(self.rows) // TUNED_ROWS)]
        tokens = sum(len(job.bodies[row]) for job in self.jobs for family in job.unit for row in family.rows)
        seconds = fastest(scorer, some, [Tuning(1, budget) for budget in self.budgets])
        return {
            "signature": scorer.signature,
            "token_budget": scorer.engine.token_budget,
            "tokens": tokens,
            "operations": tokens * self.operations_per_token,
            "graph_rows_per_second_of_budgets": {
                str(budget): len(some) / taken for budget, taken in zip(self.budgets, seconds, strict=True)
            },
        }

    def score(self) -> Facts:
        # the engine stays, but a new scorer remembers no scores
        scorer = Scorer(self.scorer.bundle, self.scorer.engine, self.scorer.encoder)
        started = time.perf_counter()
        scores = list(scorer.score(self.rows))
        seconds = time.perf_counter() - started
        if any(score.value is None for score in scores):
            raise ValueError("rows without a score")
        return {"seconds": seconds, "graph_seconds": seconds_on_graph(self.scorer, self.jobs)}


class WholePrompts:
    """A decoder that is given whole prompts, tokenised by transformers, in batches sorted by length."""

    def __init__(self, options: Namespace, rows: Sequence[Row], forward: Forward, attention: str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(decoder_folder(options, options.shape))
        self.rows, self.forward, self.attention = rows, forward, attention
        self.budgets = TINY_BUDGETS if options.tiny else BUDGETS
        self.budget = self.budgets[0]

    def warm_up(self) -> Facts:
        taken = {}
        for budget in self.budgets:
            self.budget = budget
            self.score()  # chooses kernels, or compiles
            taken[budget] = self.score()["seconds"]
        self.budget = min(taken, key=lambda budget: taken[budget])
        return {"token_budget": self.budget, "attention": self.attention, "seconds_of_budgets": taken}

    def score(self) -> Facts:
        started = time.perf_counter()
        texts = [prompt_text(row) for row in self.rows]
        ids = self.tokenizer(texts, truncation=True, max_length=TOKEN_LIMIT)["input_ids"]
        tokenised = time.perf_counter()
        for batch in length_sorted_batches([len(row) for row in ids], self.budget):
            states = self.forward(*pad([ids[i] for i in batch]))
            if not np.isfinite(states).all():
                raise ValueError("states that are not finite numbers")
        ended = time.perf_counter()
        return {"seconds": ended - started, "forward_seconds": ended - tokenised, "tokens": sum(map(len, ids))}


def transformers_way(options: Namespace, rows: Sequence[Row]) -> WholePrompts:
    """The uncut decoder in torch; the name of the way says how."""
    device = torch_device(options.device)
    flash = options.way != "transformers"
    installed = flash and find_spec("flash_attn") is not None
    attention = "flash_attention_2" if installed else "sdpa"
    model: Any = AutoModel.from_pretrained(
        decoder_folder(options, options.shape), dtype=torch.bfloat16, attn_implementation=attention
    )
    model.to(device).eval()
    called = torch.compile(model, dynamic=True) if options.way == "transformers-compiled" else model

    def kernels() -> AbstractContextManager[None]:
        return sdpa_kernel(SDPBackend.FLASH_ATTENTION) if flash and not installed else nullcontext()

    @torch.inference_mode()
    def forward(tokens: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.float32]:
        ids, at = torch.from_numpy(tokens).to(device), torch.from_numpy(last).to(device)
        # torch's flash kernel takes no mask; a causal decoder needs none for padding on the right
        mask: Tensor | None = None if flash else torch.arange(ids.shape[1], device=device) <= at[:, None]
        with kernels():
            hidden = called(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        states: NDArray[np.float32] = hidden[torch.arange(len(at), device=device), at].float().cpu().numpy()
        return states

    said = "torch's flash kernel" if flash and not installed else attention
    return WholePrompts(options, rows, forward, said)


def onnxruntime_way(options: Namespace, rows: Sequence[Row]) -> WholePrompts:
    """The plain graph; arrays in, arrays out."""
    folder = plain_folder(options.work)
    if not folder.is_dir():
        raise InputError(f"{folder}: no plain graph; make it with python -m benchmarks.gpu.bundles base")
    provider = PROVIDERS[options.device]
    session = ort.InferenceSession(folder / "model.onnx", providers=[provider], enable_fallback=0)
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"ONNX Runtime runs on {session.get_providers()[0]}, not on {provider}")
    empty = {
        node.name: np.zeros((1, node.shape[1], 0, node.shape[3]), np.float32)
        for node in session.get_inputs()
        if node.name.startswith("past_")
    }

    def forward(tokens: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.float32]:
        states: NDArray[np.float32] = session.run(["state_0"], {"tokens": tokens, "last": last, **empty})[0]
        return states

    return WholePrompts(options, rows, forward, "onnxruntime")


WAYS: dict[str, Callable[[Namespace, Sequence[Row]], Way]] = {
    "qe-edge-fp16": QeEdge,
    "qe-edge-int4": QeEdge,
    "transformers": transformers_way,
    "transformers-flash": transformers_way,
    "transformers-compiled": transformers_way,
    "onnxruntime": onnxruntime_way,
}


def answers(way: Way, loaded: float) -> Iterator[Facts]:
    """What a way says: of its start, then of a round for every line on standard input."""
    started = time.perf_counter()
    facts = way.warm_up()
    yield {"load_seconds": loaded, "warm_up_seconds": time.perf_counter() - started, **facts}
    for _ in sys.stdin:
        yield way.score()


def main() -> None:
    options_of = parser(__doc__)
    options_of.add_argument("way", choices=WAYS)
    options_of.add_argument("--shape", default="base", help="decoder that is run (default base)")
    options = options_of.parse_args()
    rows = rows_of_test20(options.data, TINY_ROWS if options.tiny else None)
    started = time.perf_counter()
    way = WAYS[options.way](options, rows)
    for facts in answers(way, time.perf_counter() - started):
        print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    run(main)
