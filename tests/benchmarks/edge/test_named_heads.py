"""Naming the numbers of heads changes no score, and the numbers are those of the model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import helper

from benchmarks.edge.named_heads import name_heads
from qe_edge.bundle import EMBEDDED_BUNDLE, MODEL_FILE, WEIGHTS_FILE, open_bundle


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded bundle's graph with its heads named."""
    folder = tmp_path_factory.mktemp("named")
    name_heads(EMBEDDED_BUNDLE / MODEL_FILE, folder / MODEL_FILE)
    shutil.copyfile(EMBEDDED_BUNDLE / WEIGHTS_FILE, folder / WEIGHTS_FILE)
    return folder / MODEL_FILE


def scores(model: Path) -> NDArray[Any]:
    """Of two rows of the same tokens, the second one token shorter, after nothing."""
    session = ort.InferenceSession(str(model))
    past = {
        value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32)
        for value in session.get_inputs()
        if value.name.startswith("past_")
    }
    tokens = np.array([[5, 300, 42, 7], [5, 300, 42, 0]])
    found: NDArray[Any] = session.run(["score"], {"tokens": tokens, "last": np.array([3, 2]), **past})[0]
    return found


def test_scores_stay_as_they_are(named: Path) -> None:
    np.testing.assert_array_equal(scores(named), scores(EMBEDDED_BUNDLE / MODEL_FILE))


def test_every_attention_has_the_heads_of_smollm2(named: Path) -> None:
    nodes = [node for node in onnx.load(named, load_external_data=False).graph.node if node.op_type == "Attention"]

    assert len(nodes) == open_bundle(EMBEDDED_BUNDLE).spec.blocks_kept
    for node in nodes:
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        assert (attributes["q_num_heads"], attributes["kv_num_heads"]) == (9, 3)
