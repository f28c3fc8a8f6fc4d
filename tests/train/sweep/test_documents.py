"""The recipes that the documents show are recipes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from qe_edge_train.recipe import parse_recipe
from qe_edge_train.sweep.plan import load_sweep

DOCUMENTS = Path(__file__).parents[3] / "docs"

WHOLE: dict[str, Any] = {
    "base": {"model": "some/model"},
    "train": [{"path": "train.tsv"}],
    "dev": [{"path": "dev.tsv"}],
    "alignment": {"texts": [{"path": "a.txt", "language": "en"}, {"path": "b.txt", "language": "et"}]},
}
"""what the examples leave out"""


def blocks(name: str) -> list[dict[str, Any]]:
    """The TOML blocks of a document."""
    found = re.findall(r"^```toml\n(.*?)^```", (DOCUMENTS / name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [tomllib.loads(block) for block in found]


def test_the_sweeps_that_the_document_shows_can_be_run(tmp_path: Path) -> None:
    plans = []
    for block in blocks("sweep.md"):
        path = tmp_path / "sweep.toml"
        path.write_text(tomli_w.dumps({**WHOLE, **block}), encoding="utf-8")
        plans.append(load_sweep(path))

    assert [len(plan) for plan in plans] == [2 * 2 * 2 * 3 * 2]  # taps, ranks, quantisations, seeds, variants


@pytest.mark.parametrize("block", blocks("training.md"))
def test_the_recipes_that_the_document_shows_can_be_read(block: dict[str, Any]) -> None:
    assert parse_recipe({**WHOLE, **block}, "docs/training.md").head.taps
