"""The retrieval curve over layers, and the heat map of its directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from qe_edge.errors import InputError
from qe_edge_train.alignment.plots import directions_figure
from qe_edge_train.alignment.pooling import pooled_states
from qe_edge_train.alignment.probe import LayerRetrieval, retrieval_curve
from qe_edge_train.alignment.retrieval import all_directions
from qe_edge_train.decoder import load_decoder
from qe_edge_train.figures import save_figure

CPU = torch.device("cpu")
LINES = [[i + 1, 2 * i + 1, i + 30] for i in range(12)]
LANGUAGES = [LINES, [[*ids, 7] for ids in LINES], [list(reversed(ids)) for ids in LINES]]
"""Three "languages": token sequences, the same with a word more, and in reverse."""


def test_each_layer_is_retrieved_from_its_own_states(tiny_base: Path) -> None:
    decoder = load_decoder(str(tiny_base), torch.float32)

    curve = retrieval_curve(decoder, LANGUAGES, [0, 3], CPU, k=2)

    assert [point.layer for point in curve] == [0, 3]
    for point in curve:
        states = [pooled_states(decoder, ids, [point.layer], CPU)[0] for ids in LANGUAGES]
        np.testing.assert_array_equal(point.directions, all_directions(states, 2))
        assert point.accuracy == pytest.approx(np.nanmean(point.directions))
        assert point.low <= point.accuracy <= point.high
    # the embeddings of a sentence and of its reverse have one mean; after three blocks order counts
    assert curve[0].directions[0, 2] == 1.0
    assert curve[0].accuracy > curve[1].accuracy


def test_too_few_lines_end_before_the_decoder_runs(tiny_base: Path) -> None:
    decoder = load_decoder(str(tiny_base), torch.float32)

    with pytest.raises(InputError, match="3 lines of parallel text: retrieval by 4 neighbours needs at least 4"):
        retrieval_curve(decoder, [ids[:3] for ids in LANGUAGES], [0], CPU)


def test_the_heat_map_names_every_direction(tmp_path: Path) -> None:
    point = LayerRetrieval(5, 0.5, 0.4, 0.6, np.array([[np.nan, 0.25], [0.75, np.nan]]))

    heat_map = directions_figure(point, ["en", "et"])

    axes = heat_map.axes[0]
    assert [(text.get_position(), text.get_text()) for text in axes.texts] == [((1, 0), "25"), ((0, 1), "75")]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["en", "et"]
    assert axes.get_title() == "hidden_states[5], mean 50.0 %"
    assert all(path.stat().st_size > 1000 for path in save_figure(heat_map, tmp_path / "map"))
