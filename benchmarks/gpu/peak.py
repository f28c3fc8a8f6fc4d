"""What the card can do at best: matrix products in 16 bits, and memory bandwidth, measured with torch.

    python -m benchmarks.gpu.peak -o peak.json

A peak is the best of several timings of square products of random numbers (zeros need less power and run faster).
Bandwidth counts what a copy reads and what it writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from benchmarks.gpu.step import GIB, MIB, finish, gpu_facts, parser, run, synchronise, torch_device

SIZES = (4096, 8192, 16384)
TINY_SIZES = (128, 256)
TIMINGS = 8
"""of each size; the best counts"""
CALLS = 10
"""products or copies in one timing"""


def best_seconds(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, the best of TIMINGS."""
    best = float("inf")
    for _ in range(TIMINGS + 1):  # the first chooses kernels, and is never the best
        synchronise(device)
        started = time.perf_counter()
        for _ in range(CALLS):
            call()
        synchronise(device)
        best = min(best, (time.perf_counter() - started) / CALLS)
    return best


def matrix_peak(dtype: torch.dtype, size: int, device: torch.device) -> float:
    """Multiplications and additions a second of a product of two matrices [size, size]."""
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    result = torch.empty_like(a)
    return 2 * size**3 / best_seconds(lambda: torch.mm(a, b, out=result), device)


def bandwidth(size: int, device: torch.device) -> float:
    """Bytes a second, read and written, of copying `size` bytes."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / best_seconds(lambda: target.copy_(source), device)


def main() -> None:
    options = parser(__doc__).parse_args()
    device = torch_device(options.device)
    sizes = TINY_SIZES if options.tiny else SIZES
    products = {
        name: {str(size): matrix_peak(dtype, size, device) for size in sizes}
        for name, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16))
    }
    facts = gpu_facts() if device.type == "cuda" else {"name": "cpu"}
    result = {
        **facts,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        **{f"{name}_operations_per_second": max(found.values()) for name, found in products.items()},
        "bytes_per_second": bandwidth(MIB if options.tiny else GIB, device),
        "products": products,
    }
    finish(options, result)


if __name__ == "__main__":
    run(main)
