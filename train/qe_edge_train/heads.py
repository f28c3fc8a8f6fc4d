"""Regression heads: from the tapped states of a row to its score (ALOPE, arXiv 2508.07484).

single    one state, one linear map
dynamic   h = sum_i w_i A_i h_i with w = softmax(theta), then one linear map
multi     a linear map for every state; the score is the mean of what they say

Shapes: B rows, K taps, H hidden size, M linear maps (K for multi, else 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Strategy = Literal["single", "dynamic", "multi"]


@dataclass(frozen=True)
class HeadOptions:
    """Shape of a regression head."""

    hidden_size: int
    """size of a state"""
    layer_norm: bool
    """whether a LayerNorm comes before a linear map"""
    bias: bool
    """whether a linear map has a bias"""
    strategy: Strategy = "single"
    """how several states make one score"""
    offsets: tuple[int, ...] = (0,)
    """how many blocks below the top of the cut decoder each state is read"""

    @property
    def outputs(self) -> int:
        """Number of linear maps, M."""
        return len(self.offsets) if self.strategy == "multi" else 1


class Mix(nn.Module):
    """The learnt weighting of strategy dynamic. theta starts at 1 for every tap, A_i as the identity: at first the mix
    is the mean of the states.

    What is learnt of A_i is M_i in A_i = 1 + M_i / sqrt(H). An optimiser such as Adam moves every entry of a matrix by
    about the learning rate, whatever its size; learnt as it is, a matrix of H x H would leave the identity within a few
    steps (docs/log.md).
    """

    identity: Tensor

    def __init__(self, taps: int, size: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(taps))
        self.changes = nn.ParameterList([nn.Parameter(torch.zeros(size, size)) for _ in range(taps)])
        self.register_buffer("identity", torch.eye(size), persistent=False)

    def tap_matrix(self, tap: int) -> Tensor:
        """A_i [H, H]"""
        matrix: Tensor = self.identity + self.changes[tap] / len(self.identity) ** 0.5
        return matrix

    def matrix(self) -> Tensor:
        """All maps with their weights as one matrix [K * H, H]; it multiplies the concatenated states of a row."""
        return torch.cat([weight * self.tap_matrix(tap).T for tap, weight in enumerate(self.theta.softmax(0))])

    def forward(self, states: Tensor) -> Tensor:
        """[B, K, H] -> [B, H]"""
        mixed: Tensor = states.flatten(1) @ self.matrix()
        return mixed


class RegressionHead(nn.Module):
    """Linear maps from tapped states to a score, optionally each after a LayerNorm, in float32.

    The linear outputs are in standard units; `shift` and `scale` bring them to the score scale.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, options: HeadOptions) -> None:
        super().__init__()
        self.options = options
        size, outputs = options.hidden_size, options.outputs
        self.mix = Mix(len(options.offsets), size) if options.strategy == "dynamic" else None
        self.norms = nn.ModuleList(nn.LayerNorm(size) if options.layer_norm else nn.Identity() for _ in range(outputs))
        self.linears = nn.ModuleList(nn.Linear(size, 1, bias=options.bias) for _ in range(outputs))
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def features(self, states: Tensor) -> Tensor:
        """What the linear maps read: states [B, K, H] -> [B, M, H], mixed and normed."""
        states = states.float()
        parts = [self.mix(states)] if self.mix is not None else list(states.unbind(1))
        return torch.stack([norm(part) for norm, part in zip(self.norms, parts, strict=True)], 1)

    def outputs(self, states: Tensor) -> Tensor:
        """States [B, K, H] -> the score by every linear map [B, M], in float32 whatever the decoder computes in."""
        with torch.autocast(states.device.type, enabled=False):
            features = self.features(states)
            standard = [linear(features[:, i]) for i, linear in enumerate(self.linears)]
            return torch.cat(standard, 1) * self.scale + self.shift

    def forward(self, states: Tensor) -> Tensor:
        """States [B, K, H] -> scores [B] on the score scale."""
        return self.outputs(states).mean(1)

    def readout(self) -> tuple[Tensor, Tensor | None]:
        """The score in standard units as one map of the features: weights [M, H] and bias, None for heads without."""
        linears = [linear for linear in self.linears if isinstance(linear, nn.Linear)]
        weight = torch.cat([linear.weight for linear in linears]) / len(linears)
        bias = torch.stack([linear.bias for linear in linears]).mean() if self.options.bias else None
        return weight, bias

    @torch.no_grad()
    def set_readout(self, weight: Tensor, bias: Tensor | None) -> None:
        """Take weights [M, H] and bias as `readout` gives them."""
        for own, linear in zip(weight, self.linears, strict=True):
            assert isinstance(linear, nn.Linear)
            linear.weight.copy_(own[None] * len(weight))
            if bias is not None:
                linear.bias.fill_(float(bias))
