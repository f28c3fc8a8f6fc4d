"""QLoRA with qe-edge's own loop: cut decoder, one prefix for all rows of a batch, batches of similar length."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from pathlib import Path

import torch

from benchmarks.gpu.training_case import Case, Clock, Trained, case_recipe, training_examples
from qe_edge_train.batches import EncodedSet, encode
from qe_edge_train.build import adapter_counts, base_facts, build_model, kept_blocks, prompt_encoder
from qe_edge_train.loop import Trainer
from qe_edge_train.objectives import Step, TaskObjective
from qe_edge_train.selection import Measured


class ClockedTask:
    """The task with a clock on its steps."""

    name = "task"

    def __init__(self, task: TaskObjective, data: EncodedSet, clock: Clock) -> None:
        self.task, self.data, self.clock = task, data, clock

    def run(self, number: int) -> Step:
        """As the task's own; counts whole prompts."""
        self.clock.before_step(number)
        step = self.task.run(number)
        rows = [row for micro_batch in self.task.plan[number] for row in micro_batch]
        prefixes = sum(len(self.data.prefixes[self.data.examples[row].names]) for row in rows)
        self.clock.after_step(number, step.loss, len(rows), step.tokens + prefixes)
        return step

    def tokens(self, number: int) -> int:
        """As the task's own."""
        return self.task.tokens(number)


class EndOfTraining:
    """Stands where dev rows would be scored, which is after the last step, and stops the clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def measure(self, whole: bool) -> Measured:
        """Nothing is measured but the time."""
        self.clock.end()
        return Measured(0.0, {}, "end of training", whole=True)


def train(options: Namespace, case: Case, device: torch.device) -> Trained:
    """Train a case. Raises torch.OutOfMemoryError when the card is too small."""
    recipe = case_recipe(options, case)
    facts = base_facts(recipe.base)
    kept = kept_blocks(recipe, facts)
    data = encode(training_examples(options, recipe), prompt_encoder(facts, recipe.head))
    clock = Clock(device, case.warm_up)
    model = build_model(recipe, facts, kept, adapter_counts(recipe, facts, kept), device)
    task = TaskObjective(recipe, model, data, device)
    with tempfile.TemporaryDirectory(prefix="qe-edge-gpu-") as folder:
        trainer = Trainer(
            recipe,
            model.decoder,
            model.head,
            [ClockedTask(task, data, clock)],
            len(task),
            EndOfTraining(clock),
            Path(folder),
            device,
            lambda _: None,
            "",
            [],
        )
        clock.begin()
        trainer.run()
    return clock.trained()
