"""Scoring rows with a bundle on ONNX Runtime."""

from qe_edge.scoring.scorer import Device, Scorer

__all__ = ["Device", "Scorer"]
