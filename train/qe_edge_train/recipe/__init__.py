"""Training recipes: what they can say (`options`) and how they are read (`reading`)."""

from qe_edge_train.recipe.options import (
    Adapter,
    Alignment,
    Allocation,
    Base,
    DataFile,
    Evaluation,
    Head,
    Optimiser,
    ParallelText,
    Recipe,
    Target,
)
from qe_edge_train.recipe.reading import load_recipe, parse_recipe, recipe_table

__all__ = [
    "Adapter",
    "Alignment",
    "Allocation",
    "Base",
    "DataFile",
    "Evaluation",
    "Head",
    "Optimiser",
    "ParallelText",
    "Recipe",
    "Target",
    "load_recipe",
    "parse_recipe",
    "recipe_table",
]
