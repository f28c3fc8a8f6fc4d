"""Small bundles: one that only opens, and some that ONNX Runtime runs and whose scores are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qe_edge.bundle import (
    FORMAT_VERSION,
    MODEL_FILE,
    PAYLOAD,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    BundleSpec,
    file_sha256,
    write_spec,
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle that opens; its graph, y = -x, is not one that can score."""
    import onnx
    from onnx import TensorProto, helper

    folder = tmp_path / "bundle"
    folder.mkdir()
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B"]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "negative", [x], [y])
    onnx.save(helper.make_model(graph, ir_version=10), folder / MODEL_FILE)
    (folder / WEIGHTS_FILE).write_bytes(b"no tensor uses this")
    (folder / TOKENIZER_FILE).write_text('{"model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}}')
    write_spec(folder, specification(folder))
    return folder


@pytest.fixture
def counting_bundle(tmp_path: Path) -> Path:
    """A bundle for translations that ONNX Runtime runs; a row's score is the number of tokens of its prompt.

    The prompt is `et en : SOURCE | TRANSLATION .` with the English names of the languages: 3 + words + 2 tokens.
    """
    return write_counting_bundle(tmp_path / "counting")


@pytest.fixture
def text_bundle(tmp_path: Path) -> Path:
    """A bundle for one text that ONNX Runtime runs; a row's score is its number of words and one more.

    The prompt is `TEXT .`: it names no language and nothing comes before the text.
    """
    return write_counting_bundle(tmp_path / "text", prompt="{text} .", language_pairs=[], score_scale="words")


def write_counting_bundle(folder: Path, **changes: object) -> Path:
    """A bundle that ONNX Runtime runs. A word is a token, and a row's score is the number of tokens of its prompt.

    changes: other values for fields of `bundle.json`. At most 16 tokens.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir()
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / TOKENIZER_FILE))

    past = ["past_key_0", "past_value_0"]
    present = ["present_key_0", "present_value_0"]
    nodes = [
        helper.make_node("Shape", ["past_key_0"], ["prefix"], start=2, end=3),
        helper.make_node("Add", ["prefix", "last"], ["before_last"]),
        helper.make_node("Add", ["before_last", "one"], ["length"]),
        helper.make_node("Cast", ["length"], ["score"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["tokens"], ["numbers"], to=TensorProto.FLOAT),
        *(helper.make_node("Unsqueeze", ["numbers", "inner_axes"], [name]) for name in present),
    ]
    graph = helper.make_graph(
        nodes,
        "counting",
        [
            helper.make_tensor_value_info("tokens", TensorProto.INT64, ["B", "S"]),
            helper.make_tensor_value_info("last", TensorProto.INT64, ["B"]),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, "P", 1]) for name in past),
        ],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["B"]),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 1, "T", 1]) for name in present),
        ],
        [
            numpy_helper.from_array(np.array([1]), "one"),
            numpy_helper.from_array(np.array([1, 3]), "inner_axes"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), folder / MODEL_FILE)
    (folder / WEIGHTS_FILE).write_bytes(b"")
    runnable = replace(specification(folder), blocks_kept=1, kv_heads=1, head_dim=1, token_limit=16)
    write_spec(folder, replace(runnable, **changes))  # type: ignore[arg-type]
    return folder


def specification(folder: Path) -> BundleSpec:
    """What `bundle.json` says of the files in a folder."""
    return BundleSpec(
        format_version=FORMAT_VERSION,
        name="tiny",
        base_model="SmolLM2-135M-Instruct",
        base_family="llama",
        licence="Apache-2.0",
        data=["MLQE-PE"],
        strategy="single",
        taps=[11],
        blocks_kept=20,
        blocks_total=30,
        kv_heads=3,
        head_dim=64,
        prompt="{sl} {tl} : {src} | {mt} .",
        bos=None,
        token_limit=512,
        language_pairs=["et-en", "ne-en"],
        score_scale="DA 0-100",
        precision="w8a8",
        gate={"rows": 200, "spearman": 0.98765, "bounds": {"spearman": 0.97}},
        metrics={"et-en": {"spearman": 0.612, "pearson": 0.633}},
        created_with={"qe-edge": "0.1.0", "torch": "2.13.0"},
        files={name: file_sha256(folder / name) for name in PAYLOAD},
    )
