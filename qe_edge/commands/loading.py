"""How the options of a command say that a scorer is to be loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qe_edge.bundle import Bundle
from qe_edge.commands.extras import require
from qe_edge.errors import UsageError

if TYPE_CHECKING:
    from qe_edge import Scorer

Device = Literal["auto", "cpu", "cuda"]
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([KMG]?)i?B?", re.IGNORECASE)
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30}


@dataclass(frozen=True)
class Loading:
    """As the arguments of `qe_edge.Scorer.load`."""

    device: Device
    threads: int | None
    cache: Path | None
    gpu_mem_limit: int | None = None


def load_scorer(bundle: Bundle, loading: Loading) -> Scorer:
    """The scorer of a bundle. Raises BundleError, DeviceError, MissingExtraError, and OutputError for the cache."""
    require("cpu", "onnxruntime")
    from qe_edge import Scorer

    return Scorer.of(
        bundle,
        device=loading.device,
        threads=loading.threads,
        cache=loading.cache,
        gpu_mem_limit=loading.gpu_mem_limit,
    )


def read_limit(size: str | None, device: Device) -> int | None:
    """Bytes of --gpu-mem-limit, a size such as 4G, 3.5 GiB or 800M, in powers of 1024.

    Raises UsageError with the value, and where no GPU is used.
    """
    if size is None:
        return None
    if device == "cpu":
        raise UsageError(f"--gpu-mem-limit {size}: --device cpu takes no memory of a GPU; leave one of the two out")
    found = _SIZE.fullmatch(size.strip())
    limit = int(float(found[1]) * (1 << _UNITS[found[2].upper()])) if found else 0
    if not 0 < limit < 1 << 48:
        raise UsageError(f"--gpu-mem-limit {size}: not a size; write it as 4G or 800M")
    return limit
