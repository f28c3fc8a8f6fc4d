"""The machine's matrix peak: the fastest that ONNX Runtime multiplies matrices on it.

One product with a constant weight, as large as a bundle's, on every core at once; a bundle's own products are held
against this figure. benchmarks/matrix_peak_graphs.py writes the graphs.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort

from qe_edge.scoring.huge_pages import MemorySince

ROWS, DEPTH, WIDTH = 768, 1536, 576
"""of x [ROWS, DEPTH] and the weight [DEPTH, WIDTH]"""
OPERATIONS = 2 * ROWS * DEPTH * WIDTH
"""multiplications and additions of one product"""
SECONDS = 1.0

Kind = Literal["int8", "float32"]
INPUTS = {"int8": np.uint8, "float32": np.float32}


def matrix_peak(kind: Kind, workers: int, seconds: float = SECONDS) -> float:
    """Operations per second with every worker on a core of its own: the sum of what each did in its best run."""
    memory = MemorySince()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    graph = Path(__file__).with_name(f"matmul_{kind}.onnx")
    session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    feeds = {"x": np.ones((ROWS, DEPTH), INPUTS[kind])}
    session.run(None, feeds)
    memory.use_huge_pages()  # as the engine does

    def fastest(_: int) -> float:
        best, end = float("inf"), time.perf_counter() + seconds
        while best == float("inf") or time.perf_counter() < end:
            start = time.perf_counter()
            session.run(None, feeds)
            best = min(best, time.perf_counter() - start)
        return best

    with ThreadPoolExecutor(workers) as pool:
        return sum(OPERATIONS / best for best in pool.map(fastest, range(workers)))
