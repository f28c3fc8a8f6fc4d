"""ONNX Runtime's `quantize_dynamic`: weights in int8, activations scaled per tensor while the graph runs.

python -m benchmarks.peers.make_int8
"""

from __future__ import annotations

import argparse
from pathlib import Path

from onnxruntime.quantization import QuantType, quantize_dynamic

from benchmarks.peers.harness import DECODERS, ENCODERS, WORK, new_folder


def quantise(model: Path, folder: Path) -> None:
    """Write the quantised graph as model.onnx with its weights in a file beside it."""
    with new_folder(folder) as part:
        quantize_dynamic(
            model, part / "model.onnx", per_channel=True, weight_type=QuantType.QInt8, use_external_data_format=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK)
    work = parser.parse_args().work
    decoder, encoder = work / DECODERS, work / ENCODERS
    for model, quantised in (
        (decoder / "optimum-cut", decoder / "optimum-cut-int8"),
        (encoder / "fp32", encoder / "int8"),
    ):
        if not quantised.is_dir():
            quantise(model / "model.onnx", quantised)


if __name__ == "__main__":
    main()
