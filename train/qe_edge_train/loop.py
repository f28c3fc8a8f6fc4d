"""The training loop: optimiser steps that alternate between objectives, evaluations, checkpoints and resuming."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from qe_edge.errors import InputError
from qe_edge_train.adapters import set_adapter
from qe_edge_train.events import EventFile
from qe_edge_train.guards import reading
from qe_edge_train.heads import RegressionHead
from qe_edge_train.objectives import Objective
from qe_edge_train.optimiser import learning_rate_factor, make_optimiser
from qe_edge_train.recipe import Recipe, recipe_table
from qe_edge_train.run import (
    ADAPTER_FOLDER,
    CHECKPOINT_FILE,
    HISTORY_FILE,
    TENSORBOARD_FOLDER,
    append_history,
    check_best,
    load_head,
    replace_file,
    save_best,
)
from qe_edge_train.selection import Selection

Report = Callable[[str], None]
LOSS_MEMORY = 0.98
"""Weight of the past in the running mean of a loss."""


@dataclass
class Progress:
    """What a checkpoint carries besides weights and optimiser state."""

    step: int = 0
    """optimiser steps done"""
    tokens: int = 0
    """real tokens trained on"""
    seconds: float = 0.0
    """time spent training, evaluations included, over all sessions"""
    best: float = -math.inf
    """best value of the selection so far"""
    best_step: int = 0
    best_figures: dict[str, Any] | None = None
    """the best checkpoint's figures, if they were measured on all there is"""
    losses: dict[str, float] | None = None
    """exponential mean of every objective's loss, by its name"""


class Trainer:
    """Trains a decoder's adapter and a head, and keeps in `folder` the checkpoint that the selection values most.

    Step n optimises objective n mod m of m, and nothing else: with a task and an alignment, strictly one after the
    other. A run interrupted at any moment continues from its last checkpoint: what a step does depends on the recipe
    and the step's number alone, and weights, optimiser, schedule and random state are restored, so on one machine the
    result is that of an uninterrupted run (docs/training.md states the tolerance).
    """

    def __init__(
        self,
        recipe: Recipe,
        decoder: nn.Module,
        head: RegressionHead | None,
        objectives: Sequence[Objective],
        steps: int,
        selection: Selection,
        folder: Path,
        device: torch.device,
        report: Report,
        base_hash: str,
        data_hashes: list[str],
    ) -> None:
        """head: none when no objective has one; steps: optimiser steps in all; hashes: sha256 of what is trained on."""
        self.recipe, self.decoder, self.head, self.objectives = recipe, decoder, head, objectives
        self.steps, self.selection = steps, selection
        self.folder, self.device, self.report = folder, device, report
        self.base_hash, self.data_hashes = base_hash, data_hashes
        options = recipe.optimiser
        modules = [module for module in (decoder, head) if module is not None]
        self.parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        self.optimiser = make_optimiser(self.parameters, options, device)
        self.schedule = LambdaLR(self.optimiser, learning_rate_factor(options, steps))
        self.progress = Progress()
        self.tokens_left = 0
        """real tokens of the steps that are not done"""
        evaluations = options.epochs * recipe.evaluation.per_epoch
        self.evaluate_at = {round(steps * (i + 1) / evaluations) for i in range(evaluations)}

    def run(self) -> Progress:
        """Train to the end, from wherever `resume` left off. Raises OSError when the folder cannot be written."""
        started = saved = time.monotonic()
        done, before = self.progress, self.progress.seconds
        self.tokens_left = sum(self._tokens(step) for step in range(done.step, self.steps))
        with closing(EventFile(self.folder / TENSORBOARD_FOLDER, done.step)) as events:
            while done.step < self.steps:
                self._step(events)
                done.seconds = before + time.monotonic() - started
                evaluated = done.step in self.evaluate_at
                if evaluated:
                    self._evaluate(events)
                    done.seconds = before + time.monotonic() - started
                if evaluated or time.monotonic() - saved > 60 * self.recipe.evaluation.checkpoint_minutes:
                    self._checkpoint()
                    saved = time.monotonic()
        return done

    def _step(self, events: EventFile) -> None:
        """One optimiser step on one objective."""
        done = self.progress
        objective = self.objectives[done.step % len(self.objectives)]
        loss, tokens = objective.run(done.step // len(self.objectives))
        if not math.isfinite(loss):
            raise InputError(f"the loss became {loss} at step {done.step + 1}: lower [optimiser] learning_rate")
        torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.optimiser.clip)
        self.optimiser.step()
        self.schedule.step()
        self.optimiser.zero_grad()
        self.tokens_left -= self._tokens(done.step)
        done.step, done.tokens = done.step + 1, done.tokens + tokens
        losses = done.losses or {}
        mean = LOSS_MEMORY * losses.get(objective.name, loss) + (1 - LOSS_MEMORY) * loss
        done.losses = {**losses, objective.name: mean}
        rate = self.schedule.get_last_lr()[0]
        events.scalar(f"train/loss/{objective.name}", loss, done.step)
        events.scalar("train/learning_rate", float(rate), done.step)
        if done.step % 20 == 0:
            self.report(self._progress_line())
            append_history(self.folder, {"step": done.step, "loss": done.losses, "learning_rate": rate})

    def _evaluate(self, events: EventFile) -> None:
        done = self.progress
        measured = self.selection.measure(whole=False)
        append_history(self.folder, {"step": done.step, "dev": measured.record})
        events.scalar("dev", measured.value, done.step)
        self.report(f"dev at step {done.step}: {measured.said}")
        if done.best_step == 0 or measured.value > done.best or math.isnan(done.best):
            done.best, done.best_step = measured.value, done.step
            done.best_figures = measured.record if measured.whole else None
            save_best(self.folder, self.decoder, self.head)

    def dev_of_best(self) -> dict[str, Any]:
        """Figures of the best checkpoint on all there is to measure on."""
        if self.progress.best_figures is not None:
            return self.progress.best_figures
        set_adapter(self.decoder, self.folder / ADAPTER_FOLDER)
        if self.head is not None:
            load_head(self.folder, self.head)
        return self.selection.measure(whole=True).record

    def _tokens(self, step: int) -> int:
        """Real tokens of an optimiser step."""
        count = len(self.objectives)
        return self.objectives[step % count].tokens(step // count)

    def _progress_line(self) -> str:
        done = self.progress
        rate = done.tokens / max(done.seconds, 1e-9)
        left = self.tokens_left / rate
        losses = "  ".join(f"{name} {loss:.4f}" for name, loss in (done.losses or {}).items())
        return (
            f"step {done.step}/{self.steps}  loss: {losses}  {rate:.0f} tokens/s  {timedelta(seconds=round(left))} left"
        )

    def _checkpoint(self) -> None:
        state = {
            "recipe": json.dumps(recipe_table(self.recipe)),
            "objectives": [objective.name for objective in self.objectives],
            "base": self.base_hash,
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

        Raises InputError when it is damaged or belongs to another recipe or to other data.
        """
        path = self.folder / CHECKPOINT_FILE
        if not path.is_file():
            (self.folder / HISTORY_FILE).unlink(missing_ok=True)
            return
        remedy = "delete it to start again from the first step, what was trained is lost"
        with reading(path, Exception, remedy=remedy):  # there is no end to what torch raises for damaged files
            state = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
            recipe = json.loads(state["recipe"])
        if recipe != json.loads(json.dumps(recipe_table(self.recipe))):
            raise InputError(
                f"{path}: belongs to another recipe; give another -o, or delete {self.folder} to start again"
            )
        if state["objectives"] != [objective.name for objective in self.objectives]:
            kinds = " and ".join(state["objectives"])
            raise InputError(f"{path}: belongs to a training of {kinds}; give another -o, or delete {self.folder}")
        if state.get("base", self.base_hash) != self.base_hash:
            raise InputError(
                f"{path}: the weights of the base have changed since; fetch the earlier ones again, or delete "
                f"{self.folder} to start again"
            )
        if state["data"] != self.data_hashes:
            raise InputError(f"{path}: the tables have changed since; delete {self.folder} to start again")
        if state["progress"]["best_step"]:
            check_best(self.folder, self.recipe, self.head is not None)
        with torch.no_grad():
            for parameter, saved in zip(self.parameters, state["weights"], strict=True):
                parameter.copy_(saved)
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"]:
            torch.cuda.set_rng_state_all(state["random_cuda"])
        self.progress = Progress(**state["progress"])
        replace_file(self.folder / HISTORY_FILE, _history(self.folder / HISTORY_FILE, self.progress.step))
        self.report(f"resumed at step {self.progress.step} of {self.steps}")


def _history(path: Path, step: int) -> bytes:
    """The lines of a history up to a step. A last line without its end, torn by a power cut or a full disk, is none."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    with reading(path, ValueError, KeyError, TypeError, remedy="delete it, only the record of the losses is lost"):
        return b"".join(line + b"\n" for line in lines if json.loads(line)["step"] <= step)


def describe(progress: Progress) -> dict[str, Any]:
    """Figures of a finished run for its summary."""
    return {
        "seconds": round(progress.seconds, 1),
        "tokens_per_second": round(progress.tokens / max(progress.seconds, 1e-9), 1),
    }
