"""qe-edge: translation quality estimation, and other regression on text, on small machines, offline.

from qe_edge import Row, Scorer

for score in Scorer.load().score([Row.translation("Tere, maailm!", "Hello, world!", "et", "en")]):
    print(score.value, score.status)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qe_edge.errors import QeEdgeError
from qe_edge.rows import Row, Score, Status

__version__ = "0.1.0"

__all__ = ["QeEdgeError", "Row", "Score", "Scorer", "Status", "__version__"]

# ONNX Runtime 1.31 for Linux collects what it is used for in ~/.cache/Microsoft and sends that to its maker. It reads
# this when it is imported, and nothing that can be called afterwards stops it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

if TYPE_CHECKING:
    from qe_edge.scoring import Scorer
else:

    def __getattr__(name: str) -> object:
        """Import `Scorer` on first use: ONNX Runtime takes longer to load than everything else here."""
        if name != "Scorer":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from qe_edge.scoring import Scorer

        return Scorer
