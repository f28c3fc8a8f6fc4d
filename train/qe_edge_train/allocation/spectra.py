"""How well each block is trained: power-law exponents of the eigenvalue spectra of its weights.

The larger the exponent alpha, the lighter the tail of the spectrum and the less well trained the block
(AlphaLoRA, arXiv 2410.10054).

Legend: N blocks, n eigenvalues of one matrix, C candidates for the start of the tail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from qe_edge.errors import InputError
from qe_edge.metrics import FloatArray
from qe_edge_train.adapters.lora import LINEAR_MAPS
from qe_edge_train.decoder import blocks, load_decoder

Estimator = Literal["hill_median", "ks_peak"]
BINS = 100
WINDOW = (0.95, 1.5)
"""Bounds of the candidates of `ks_peak`, as multiples of the lower edge of the fullest bin."""
FULL_PRECISION = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def eigenvalues(weight: Tensor) -> FloatArray:
    """The eigenvalues of W^T W that are not zero, ascending [n], n = rank of W <= min(out, in).

    W [out, in] of any floating type; the smaller of W^T W and W W^T is decomposed in float64, which takes half the time
    of the singular values of W or less, and gives the same exponents within 1e-12 (SmolLM2-135M). Eigenvalues that the
    shape forces to zero (out < in) and those below the rounding error are no part of the spectrum. Raises ValueError
    when W holds a value that is not finite.
    """
    matrix = weight.detach().to(torch.float64)
    if not bool(torch.isfinite(matrix).all()):
        raise ValueError("it holds values that are not finite")
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    found: FloatArray = torch.linalg.eigvalsh(wide @ wide.T).cpu().numpy()
    kept: FloatArray = found[found > len(found) * np.finfo(np.float64).eps * found[-1]]
    return kept


def pl_alpha_hill(spectrum: FloatArray) -> float:
    """Hill's estimate of the exponent over the upper half of the spectrum (PL_Alpha_Hill, arXiv 2410.10054).

        alpha = 1 + k / sum_{i=1..k} ln(lambda_{n-i+1} / lambda_{n-k}),  k = n / 2, rounded down

    spectrum: positive eigenvalues, ascending [n]. Raises ValueError when its upper half has no spread.
    """
    k = len(spectrum) // 2
    if k == 0:
        raise ValueError(f"{len(spectrum)} eigenvalues above zero")
    spread = float(np.log(spectrum[-k:] / spectrum[-k - 1]).sum())
    if spread <= 0:
        raise ValueError("the upper half of its eigenvalues are all the same")
    return 1 + k / spread


def ks_peak(spectrum: FloatArray) -> float:
    """The exponent of the best-fitting tail that begins near the peak of the log histogram.

    Every eigenvalue in a window is tried as x_min, with alpha = 1 + m / sum ln(x / x_min) over the m eigenvalues x >=
    x_min; the one whose power law is nearest to the empirical distribution of its tail counts (Kolmogorov-Smirnov
    distance; Clauset, Shalizi and Newman, arXiv 0706.1062). The window: p is the lower edge of the fullest of 100 equal
    bins of log10(eigenvalue) (the lowest of several); it reaches from 0.95 p to 1.5 p, and at least over that bin. The
    largest eigenvalue is no candidate, since nothing lies beyond it.

    spectrum: positive eigenvalues, ascending [n]. Raises ValueError when the window holds no candidate.
    """
    if len(spectrum) < 2:
        raise ValueError(f"{len(spectrum)} eigenvalues above zero")
    counts, edges = np.histogram(np.log10(spectrum), BINS)
    peak = int(counts.argmax())
    lower, upper = 10 ** edges[peak], 10 ** edges[peak + 1]
    inside = (spectrum >= WINDOW[0] * lower) & (spectrum <= max(WINDOW[1] * lower, upper)) & (spectrum < spectrum[-1])
    start = np.flatnonzero(inside)  # [C], the position of x_min
    if len(start) == 0:
        raise ValueError("the fullest part of its spectrum is a single value")
    logs = np.log(spectrum)
    size = len(spectrum) - start  # [C], eigenvalues in the tail
    spread = logs[::-1].cumsum()[::-1][start] - size * logs[start]  # [C], sum of ln(x / x_min)
    alpha = 1 + size / spread
    rank = np.arange(len(spectrum)) - start[:, None]  # [C, n], eigenvalues of the tail that lie below; < 0: not in it
    above = np.maximum(logs - logs[start, None], 0)  # [C, n], ln(x / x_min)
    law = -np.expm1((1 - alpha[:, None]) * above)  # 1 - (x / x_min)^(1 - alpha)
    before, after = law - rank / size[:, None], (rank + 1) / size[:, None] - law
    distance = np.where(rank >= 0, np.maximum(before, after), 0).max(1)  # [C]
    return float(alpha[distance.argmin()])


ESTIMATORS: dict[Estimator, Callable[[FloatArray], float]] = {"hill_median": pl_alpha_hill, "ks_peak": ks_peak}


def load_unquantised(base: str) -> PreTrainedModel:
    """The uncut decoder of a hub id or a local folder in the type that its weights are stored in.

    Raises UsageError when it cannot be loaded.
    """
    return load_decoder(base, "auto")


def block_spectra(decoder: nn.Module) -> list[dict[str, FloatArray]]:
    """For every block, the eigenvalues of each of its linear maps by name (`self_attn.q_proj`); [n], ascending.

    A fused map counts as the one matrix that it is. Raises InputError for weights that are quantised or not finite.
    """
    return [
        {name: _spectrum(linear, f"block {number}, {name}") for name, linear in linear_maps(block)}
        for number, block in enumerate(blocks(decoder), start=1)
    ]


def matrix_alphas(spectra: list[dict[str, FloatArray]], estimator: Estimator) -> list[dict[str, float]]:
    """For every block, the exponent of each of its matrices. Raises InputError when one has no tail to fit."""
    return [
        {name: _alpha(spectrum, estimator, f"block {number}, {name}") for name, spectrum in block.items()}
        for number, block in enumerate(spectra, start=1)
    ]


def block_means(alphas: list[dict[str, float]]) -> FloatArray:
    """The mean exponent over the matrices of each block [N]."""
    return np.array([np.mean(list(block.values())) for block in alphas])


def block_alphas(decoder: nn.Module, estimator: Estimator) -> FloatArray:
    """The exponent of every block [N]: the mean over its linear maps. Errors as `block_spectra`, `matrix_alphas`."""
    return block_means(matrix_alphas(block_spectra(decoder), estimator))


def linear_maps(block: nn.Module) -> list[tuple[str, nn.Linear]]:
    """The linear maps of a block (seven, unless fused) with their names inside it."""
    return [
        (name, module)
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in LINEAR_MAPS
    ]


def _spectrum(linear: nn.Linear, place: str) -> FloatArray:
    if linear.weight.dtype not in FULL_PRECISION:
        raise InputError(
            f"{place}: its weights are quantised ({linear.weight.dtype}); give the base as it was released"
        )
    try:
        return eigenvalues(linear.weight)
    except ValueError as error:
        raise InputError(f"{place}: {error}; fetch the base again") from None


def _alpha(spectrum: FloatArray, estimator: Estimator, place: str) -> float:
    try:
        return ESTIMATORS[estimator](spectrum)
    except ValueError as error:
        raise InputError(
            f"{place}: no power law can be fitted by {estimator}: {error}; "
            "use the other estimator or an allocation that needs no alphas, as uniform"
        ) from None
