"""What a training step can optimise: the task, or the alignment of a layer across languages."""

from qe_edge_train.objectives.alignment import AlignmentObjective
from qe_edge_train.objectives.step import Objective, Step
from qe_edge_train.objectives.task import TaskObjective

__all__ = ["AlignmentObjective", "Objective", "Step", "TaskObjective"]
