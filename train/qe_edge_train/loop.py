"""The training loop: optimiser steps, evaluations, checkpoints and resuming."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import load_peft_weights, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.tensorboard import SummaryWriter

from qe_edge.errors import InputError
from qe_edge.metrics import Agreement
from qe_edge_train.batches import EncodedSet, collate, plan_epoch
from qe_edge_train.evaluate import dev_record, dev_sample, per_pair, predict
from qe_edge_train.recipe import Optimiser as OptimiserOptions
from qe_edge_train.recipe import Recipe, Target, recipe_table
from qe_edge_train.run import (
    ADAPTER_FOLDER,
    CHECKPOINT_FILE,
    HEAD_FILE,
    HISTORY_FILE,
    append_history,
    replace_file,
    save_best,
)
from qe_edge_train.tapped import RegressionHead, TappedRegressor

Report = Callable[[str], None]


@dataclass
class Progress:
    """What a checkpoint carries besides weights and optimiser state."""

    step: int = 0
    """optimiser steps done"""
    tokens: int = 0
    """real body tokens trained on"""
    seconds: float = 0.0
    """time spent training, evaluations included, over all sessions"""
    best: float = -math.inf
    """best mean per-pair dev Spearman so far"""
    best_step: int = 0
    running_loss: float = 0.0
    """exponential mean of the loss"""


class Trainer:
    """Trains a model on `train`, keeps the checkpoint with the best mean per-pair dev Spearman in `folder`.

    A run interrupted at any moment continues from its last checkpoint: row order depends on seed and epoch alone, and
    weights, optimiser, schedule and random state are restored, so on one machine the result is that of an
    uninterrupted run (docs/training.md states the tolerance).
    """

    def __init__(
        self,
        recipe: Recipe,
        model: TappedRegressor,
        train: EncodedSet,
        dev: EncodedSet,
        folder: Path,
        device: torch.device,
        report: Report,
        data_hashes: list[str],
    ) -> None:
        self.recipe, self.model, self.train, self.dev = recipe, model, train, dev
        self.folder, self.device, self.report = folder, device, report
        self.data_hashes = data_hashes
        options = recipe.optimiser
        self.weights = row_weights(train, recipe.target)
        set_scale(model.head, train, recipe.target)
        epochs = range(options.epochs)
        self.plan = [
            step
            for epoch in epochs
            for step in plan_epoch(train, options.batch_size, options.micro_batch_size, options.seed, epoch)
        ]
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimiser = make_optimiser(self.parameters, options, device)
        self.schedule = LambdaLR(self.optimiser, learning_rate_factor(options, len(self.plan)))
        self.progress = Progress()
        evaluations = options.epochs * recipe.evaluation.per_epoch
        self.evaluate_at = {round(len(self.plan) * (i + 1) / evaluations) for i in range(evaluations)}

    def run(self) -> Progress:
        """Train to the end, from wherever `resume` left off."""
        started = saved = time.monotonic()
        before = self.progress.seconds
        writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.progress.step)
        for number in range(self.progress.step, len(self.plan)):
            loss, tokens = self._step(self.plan[number])
            done = self.progress
            done.step, done.tokens = number + 1, done.tokens + tokens
            done.running_loss = loss if number == 0 else 0.98 * done.running_loss + 0.02 * loss
            done.seconds = before + time.monotonic() - started
            rate = self.schedule.get_last_lr()[0]
            writer.add_scalar("train/loss", loss, done.step)
            writer.add_scalar("train/learning_rate", rate, done.step)
            if done.step % 20 == 0:
                self.report(self._progress_line())
                append_history(self.folder, {"step": done.step, "loss": done.running_loss, "learning_rate": rate})
            evaluated = done.step in self.evaluate_at
            if evaluated:
                self._evaluate(writer)
                done.seconds = before + time.monotonic() - started
            if evaluated or time.monotonic() - saved > 60 * self.recipe.evaluation.checkpoint_minutes:
                self._checkpoint()
                saved = time.monotonic()
        writer.close()
        return self.progress

    def _step(self, micro_batches: list[list[int]]) -> tuple[float, int]:
        """One optimiser step; returns its loss and the number of real body tokens."""
        self.model.train()
        options = self.recipe.optimiser
        total, tokens = 0.0, 0
        rows_in_step = sum(map(len, micro_batches))
        for rows in micro_batches:
            batch = collate(self.train, rows, self.device, options.share_prefix)
            human = torch.tensor([self.train.examples[i].score for i in rows], device=self.device)
            weight = self.weights[rows].to(self.device)
            with self._precision():
                past = self.model.prefix(batch.prefix) if options.share_prefix else None
                scores, _ = self.model(batch.tokens, batch.last, past)
            error = (scores - human) / self.model.head.scale
            loss = self.recipe.target.loss_weight * (weight * error.square()).sum() / rows_in_step
            loss.backward()
            total += loss.item()
            tokens += sum(len(self.train.bodies[i]) for i in rows)
        if not math.isfinite(total):
            raise InputError(
                f"the loss became {total} at step {self.progress.step + 1}: lower [optimiser] learning_rate"
            )
        torch.nn.utils.clip_grad_norm_(self.parameters, options.clip)
        self.optimiser.step()
        self.schedule.step()
        self.optimiser.zero_grad()
        return total, tokens

    def _evaluate(self, writer: SummaryWriter) -> None:
        result = self._score(dev_sample(self.dev, self.recipe.evaluation.rows_per_pair, self.recipe.optimiser.seed))
        record = dev_record(result)
        mean = record["macro_spearman"]
        append_history(self.folder, {"step": self.progress.step, "dev": record})
        writer.add_scalar("dev/macro_spearman", mean, self.progress.step)
        for pair, value in result.items():
            writer.add_scalar(f"dev/spearman/{pair}", value.spearman, self.progress.step)
        pairs = "  ".join(f"{pair} {value.spearman:.3f}" for pair, value in result.items())
        self.report(f"dev at step {self.progress.step}: mean Spearman {mean:.4f}  ({pairs})")
        if self.progress.best_step == 0 or mean > self.progress.best or math.isnan(self.progress.best):
            self.progress.best, self.progress.best_step = mean, self.progress.step
            save_best(self.folder, self.model.adapter(), self.model.head)

    def _score(self, rows: list[int]) -> dict[str, Agreement]:
        with self._precision():
            return per_pair(self.dev, rows, predict(self.model, self.dev, rows, self.device))

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.recipe.base.dtype == "bfloat16")

    def dev_of_best(self) -> dict[str, Any]:
        """Dev metrics of the best checkpoint on all dev rows; its weights stay in the model."""
        adapter = self.model.adapter()
        set_peft_model_state_dict(adapter, load_peft_weights(str(self.folder / ADAPTER_FOLDER), device="cpu"))
        self.model.head.load_state_dict(load_file(self.folder / HEAD_FILE))
        return dev_record(self._score(list(range(len(self.dev.examples)))))

    def _progress_line(self) -> str:
        done = self.progress
        rate = done.tokens / max(done.seconds, 1e-9)
        left = sum(len(self.train.bodies[i]) for step in self.plan[done.step :] for rows in step for i in rows) / rate
        return (
            f"step {done.step}/{len(self.plan)}  loss {done.running_loss:.4f}  {rate:.0f} tokens/s  "
            f"{timedelta(seconds=round(left))} left"
        )

    def _checkpoint(self) -> None:
        state = {
            "recipe": json.dumps(recipe_table(self.recipe)),
            "data": self.data_hashes,
            "progress": vars(self.progress),
            "weights": [p.detach().cpu() for p in self.parameters],
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        replace_file(self.folder / CHECKPOINT_FILE, buffer.getvalue())

    def resume(self) -> None:
        """Take up the checkpoint in the folder, if there is one; nothing is written before it is known to fit.

        Raises InputError when it belongs to another recipe or to other data.
        """
        path = self.folder / CHECKPOINT_FILE
        if not path.is_file():
            (self.folder / HISTORY_FILE).unlink(missing_ok=True)
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        if json.loads(state["recipe"]) != json.loads(json.dumps(recipe_table(self.recipe))):
            raise InputError(
                f"{path}: belongs to another recipe; give another -o, or delete {self.folder} to start again"
            )
        if state["data"] != self.data_hashes:
            raise InputError(f"{path}: the tables have changed since; delete {self.folder} to start again")
        with torch.no_grad():
            for parameter, saved in zip(self.parameters, state["weights"], strict=True):
                parameter.copy_(saved)
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"]:
            torch.cuda.set_rng_state_all(state["random_cuda"])
        self.progress = Progress(**state["progress"])
        history = self.folder / HISTORY_FILE
        kept = [line for line in _lines(history) if json.loads(line)["step"] <= self.progress.step]
        replace_file(history, "".join(kept).encode())
        self.report(f"resumed at step {self.progress.step} of {len(self.plan)}")


def _lines(path: Path) -> Iterator[str]:
    if path.is_file():
        with path.open(encoding="utf-8") as stream:
            yield from stream


def row_weights(data: EncodedSet, target: Target) -> Tensor:
    """Weight of each row in the loss, mean 1 [rows]."""
    pairs = np.array([example.pair for example in data.examples])
    scores = np.array([example.score for example in data.examples])
    weights = np.ones(len(scores))
    if target.balance == "inverse_sd":
        for pair in data.pairs:
            deviation = scores[pairs == pair].std()
            if deviation == 0:
                raise InputError(f"all training scores of {pair} are the same: nothing to learn, leave the pair out")
            weights[pairs == pair] = 1 / deviation
        weights /= weights.mean()
    return torch.tensor(weights, dtype=torch.float32)


def set_scale(head: RegressionHead, data: EncodedSet, target: Target) -> None:
    """Let the head work in standard units of the training scores, if the target asks for it."""
    if target.standardise:
        scores = np.array([example.score for example in data.examples])
        if scores.std() == 0:
            raise InputError("all training scores are the same: nothing to learn")
        head.shift.fill_(float(scores.mean()))
        head.scale.fill_(float(scores.std()))


def make_optimiser(parameters: list[torch.nn.Parameter], options: OptimiserOptions, device: torch.device) -> Optimizer:
    """AdamW; on a GPU bitsandbytes' paged form, whose states may leave the card when memory is short."""
    paged = options.algorithm == "paged_adamw_32bit" or (options.algorithm == "auto" and device.type == "cuda")
    if paged:
        from bitsandbytes.optim.adamw import PagedAdamW32bit

        optimiser: Optimizer = PagedAdamW32bit(parameters, lr=options.learning_rate, weight_decay=options.weight_decay)
        return optimiser
    return AdamW(parameters, lr=options.learning_rate, weight_decay=options.weight_decay, fused=True)


def learning_rate_factor(options: OptimiserOptions, steps: int) -> Callable[[int], float]:
    """Factor on the peak learning rate at each optimiser step: linear warm-up, then the schedule."""
    warm = round(options.warmup * steps)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        share = (step - warm) / max(steps - warm, 1)
        if options.schedule == "linear":
            return 1 - share
        if options.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * share))
        return 1.0

    return factor


def describe(progress: Progress) -> dict[str, Any]:
    """Figures of a finished run for its summary."""
    return {
        "seconds": round(progress.seconds, 1),
        "tokens_per_second": round(progress.tokens / max(progress.seconds, 1e-9), 1),
    }
