"""OpenVINO models from the graphs of make_onnx.py: float32, weights in int8 (nncf), and all in int8 (nncf, calibrated).

python -m benchmarks.peers.make_openvino
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nncf  # type: ignore[import-not-found]  # in its environment only
import numpy as np
import openvino  # type: ignore[import-not-found]  # in its environment only

from benchmarks.peers.harness import COMPARED, DECODERS, ROWS_FILE, WORK, decoder_inputs, new_folder

CALIBRATION = 100
"""Rows on which activations are measured; none of those whose states are compared."""


def save(model: Any, path: Path) -> None:
    """Write a model in float32, as it is."""
    openvino.save_model(model, path, compress_to_fp16=False)


def calibration(work: Path) -> Iterable[dict[str, Any]]:
    """Rows as inputs of the graph, one at a time."""
    prompts = json.loads((work / ROWS_FILE).read_text(encoding="utf-8"))["prompts"]
    for prompt in prompts[COMPARED : COMPARED + CALIBRATION]:
        yield decoder_inputs(np.array([prompt], np.int64))


def convert(models: Path, folder: Path, work: Path) -> None:
    """Write all models to `folder`."""
    for name in ("uncut", "cut"):
        save(openvino.convert_model(models / f"optimum-{name}" / "model.onnx"), folder / f"fp32-{name}.xml")
    core = openvino.Core()
    cut = folder / "fp32-cut.xml"
    save(nncf.compress_weights(core.read_model(cut)), folder / "int8-weights-cut.xml")
    rows = nncf.Dataset(list(calibration(work)))
    model = nncf.quantize(core.read_model(cut), rows, subset_size=CALIBRATION, model_type=nncf.ModelType.TRANSFORMER)
    save(model, folder / "int8-static-cut.xml")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK)
    work = parser.parse_args().work
    models = work / DECODERS
    if not (models / "openvino").is_dir():
        with new_folder(models / "openvino") as folder:
            convert(models, folder, work)


if __name__ == "__main__":
    main()
