"""Export with optimum-onnx, in its own environment: the base, whole and cut, or the encoder. float32.

python -m benchmarks.peers.make_onnx {base,encoder}
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from optimum.exporters.onnx import onnx_export_from_model  # type: ignore[import-untyped]

from benchmarks.peers.decoder import load_decoder
from benchmarks.peers.encoder import load_encoder
from benchmarks.peers.harness import BASE, DECODERS, ENCODERS, WORK, new_folder


def export(model: Any, folder: Path) -> None:
    """Write model.onnx, from token ids and mask to the last hidden state."""
    with new_folder(folder) as part:
        onnx_export_from_model(model, part, task="feature-extraction", do_validation=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=("base", "encoder"))
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--work", type=Path, default=WORK)
    arguments = parser.parse_args()
    if arguments.model == "encoder":
        if not (arguments.work / ENCODERS / "fp32").is_dir():
            export(load_encoder(), arguments.work / ENCODERS / "fp32")
        return
    models = arguments.work / DECODERS
    for name, cut in (("optimum-cut", True), ("optimum-uncut", False)):
        if not (models / name).is_dir():
            export(load_decoder(arguments.base, cut), models / name)


if __name__ == "__main__":
    main()
