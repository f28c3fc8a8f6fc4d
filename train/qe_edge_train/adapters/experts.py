"""A routed mixture of LoRA experts on every linear map of a decoder (AlphaLoRA, arXiv 2410.10054).

    y = W x + sum_e g_e (alpha / r) B_e A_e dropout(x)

A router scores the experts for each token; the softmax over the best two gives their gates g, the others get 0. That is
the softmax over all experts, cut to its two largest and made to sum to 1 again. Where a block has one expert there is
no router and its gate is 1: plain LoRA.

All experts are computed at once, with their A and their B stacked, so the layer has no loop and no shape that depends
on the data, and exports to ONNX as it is. The weights of router and experts are float32; matrix products under autocast
are in its type, as in peft, except the router's, which stay in float32.

Legend: B rows, S tokens, E experts, R rank of one expert.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qe_edge.errors import InputError
from qe_edge_train.adapters.lora import LINEAR_MAPS
from qe_edge_train.decoder import blocks, plain_decoder

CONFIG_FILE = "experts.json"
WEIGHTS_FILE = "experts.safetensors"
FORMAT = "qe-edge experts 1"
CHOSEN = 2
"""Experts that a token is sent to."""
PARTS = ("experts_a", "experts_b", "router")
"""Parameters of an `ExpertLinear`. They end the names of its weights in an exported graph too."""


@dataclass(frozen=True)
class ExpertOptions:
    """What `experts.json` holds besides the name of the format."""

    counts: list[int]
    """experts of each block"""
    rank: int
    """rank of one expert"""
    alpha: int
    """numerator of the scale alpha / rank"""
    dropout: float
    """dropout before the experts; the router sees all of its input"""


class ExpertLinear(nn.Module):
    """A frozen linear map with experts beside it. `base` may be quantised (bitsandbytes' Linear4bit).

    Weights are stored as they are multiplied, x @ weight, so that an exported graph keeps them and their names as they
    are (it would transpose those of nn.Linear): `experts_a` [in, E * R], `experts_b` [E * R, out], `router` [in, E].
    """

    def __init__(self, base: nn.Linear, experts: int, rank: int, alpha: int, dropout: float) -> None:
        super().__init__()
        device, bound = base.weight.device, base.in_features**-0.5
        self.base = base
        self.in_features, self.out_features = base.in_features, base.out_features
        self.experts, self.rank = experts, rank
        self.alpha = alpha
        self.dropout = nn.Dropout(dropout)
        # A and router start as nn.Linear does (A as in peft's LoRA, then), B at 0, so that nothing changes at first
        self.experts_a = nn.Parameter(
            torch.empty(base.in_features, experts * rank, device=device).uniform_(-bound, bound)
        )
        self.experts_b = nn.Parameter(torch.zeros(experts * rank, base.out_features, device=device))
        self.router: nn.Parameter | None = None
        if experts > 1:
            self.router = nn.Parameter(torch.empty(base.in_features, experts, device=device).uniform_(-bound, bound))
        self.recorded: list[Tensor] | None = None
        """where the router's output goes while `recorded_routing` is in force"""
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out], in the type that the base returns."""
        result: Tensor = self.base(x)
        autocast = torch.is_autocast_enabled(x.device.type)
        inner = self.dropout(x if autocast else x.float()) @ self.experts_a  # [..., E * R]
        inner = inner * (self.alpha / self.rank)
        if self.router is not None:
            inner = inner * self.gates(x).repeat_interleave(self.rank, -1)
        delta: Tensor = inner @ self.experts_b
        return result + delta.to(result.dtype)

    def gates(self, x: Tensor) -> Tensor:
        """The weight of each expert for each token: [..., in] -> float32 [..., E], at most two above 0, sum 1."""
        assert self.router is not None, "a single expert has no router"
        with torch.autocast(x.device.type, enabled=False):
            scores = x.float() @ self.router
            if self.training and self.recorded is not None:
                self.recorded.append(scores)
            if self.experts > CHOSEN:
                best, where = scores.topk(CHOSEN)
                scores = torch.full_like(scores, float("-inf")).scatter(-1, where, best)
            return scores.softmax(-1)


def add_experts(decoder: nn.Module, counts: Sequence[int], rank: int, alpha: int, dropout: float) -> None:
    """Freeze a decoder and put fresh experts on every linear map of its blocks, in place: counts[i] in block i.

    Raises ValueError unless `counts` names every block once, each at least 1.
    """
    layers = blocks(decoder)
    if len(counts) != len(layers) or min(counts) < 1:
        raise ValueError(f"expert counts {list(counts)} do not fit {len(layers)} blocks")
    decoder.requires_grad_(False)
    for block, count in zip(layers, counts, strict=True):
        for parent in list(block.modules()):
            for name, child in list(parent.named_children()):
                if name in LINEAR_MAPS and isinstance(child, nn.Linear):
                    setattr(parent, name, ExpertLinear(child, count, rank, alpha, dropout))


def has_experts(decoder: nn.Module) -> bool:
    """Whether a decoder has experts."""
    return any(isinstance(module, ExpertLinear) for module in decoder.modules())


@contextmanager
def recorded_routing(decoder: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what the routers say: a list that gets the router scores [B, S, E] of each routed layer, in order of use.

    Only layers in training mode are recorded, and only calls inside the context. The forward pass belongs inside, the
    backward pass outside: with gradient checkpointing it runs the layers again, and those calls do not count.
    """
    recorded: list[Tensor] = []
    routed = [module for module in decoder.modules() if isinstance(module, ExpertLinear)]
    for module in routed:
        module.recorded = recorded
    try:
        yield recorded
    finally:
        for module in routed:
            module.recorded = None


def balance_loss(routing: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
    """How unevenly experts are used: the sum over routed layers of E sum_e f_e p_e (arXiv 2101.03961, eq. 4).

    f_e is the share of the assignments (two a token) that expert e gets, p_e the mean of its router probability over
    the tokens; even use gives 1. Gradients flow through p. Layers with one expert have no router and do not count;
    where there are no others, the loss is 0.

    routing: router scores [B, S, E] from `recorded_routing`; mask: bool [B, S], true for the tokens that count, so not
    for padding; None counts all.
    """
    losses = []
    for scores in routing:
        tokens = scores.flatten(0, -2) if mask is None else scores[mask]  # [tokens, E]
        experts = tokens.shape[-1]
        chosen = F.one_hot(tokens.topk(CHOSEN).indices, experts).float()  # [tokens, 2, E]
        losses.append(experts * (chosen.mean((0, 1)) * tokens.softmax(-1).mean(0)).sum())
    return torch.stack(losses).sum() if losses else torch.zeros(())


def experts_state(decoder: nn.Module) -> dict[str, Tensor]:
    """The trained tensors of all experts and routers by name, as `layers.0.self_attn.q_proj.experts_a`."""
    return {
        f"{name}.{part}": weight
        for name, module in plain_decoder(decoder).named_modules()
        if isinstance(module, ExpertLinear)
        for part in PARTS
        if (weight := getattr(module, part)) is not None
    }


def save_experts(decoder: nn.Module, folder: Path) -> None:
    """Write `experts.json` and `experts.safetensors` into a folder that exists."""
    first = [next(m for m in block.modules() if isinstance(m, ExpertLinear)) for block in blocks(decoder)]
    one = first[0]
    counts = [module.experts for module in first]
    options = ExpertOptions(counts, one.rank, one.alpha, one.dropout.p)
    text = json.dumps({"format": FORMAT, **asdict(options)}, indent=2) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in experts_state(decoder).items()}
    save_file(state, folder / WEIGHTS_FILE)


def load_experts(decoder: nn.Module, folder: Path) -> None:
    """Put the experts that `save_experts` wrote onto a decoder that has none, which is frozen by it.

    Raises InputError for files that are missing, damaged or made for a decoder of another depth or width.
    """
    options = _read_options(folder / CONFIG_FILE)
    depth = len(blocks(decoder))
    if len(options.counts) != depth:
        raise InputError(
            f"{folder / CONFIG_FILE}: experts for {len(options.counts)} blocks, but the decoder has {depth}; "
            "load them onto the base and tap that they were trained on"
        )
    add_experts(decoder, options.counts, options.rank, options.alpha, options.dropout)
    set_experts(decoder, folder)


def set_experts(decoder: nn.Module, folder: Path) -> None:
    """Give the experts of a decoder the weights that `save_experts` wrote. Raises InputError when they do not fit."""
    path = folder / WEIGHTS_FILE
    try:
        saved = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read: {error}; copy the adapter folder again") from None
    own = experts_state(decoder)
    for name in sorted(own.keys() | saved.keys()):
        found = f"{list(saved[name].shape)}" if name in saved else "missing"
        needed = f"{list(own[name].shape)}" if name in own else "none"
        if found != needed:
            raise InputError(
                f"{path}: {name} is {found}, but the decoder needs {needed}; "
                "load the experts onto the base and tap that they were trained on"
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved[name])


def _read_options(path: Path) -> ExpertOptions:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise InputError(f"{path}: not of the format {FORMAT!r}; load it with the version of qe-edge that wrote it")
        return ExpertOptions(**content)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; give a folder that holds experts") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged: {error}; copy the adapter folder again") from None
