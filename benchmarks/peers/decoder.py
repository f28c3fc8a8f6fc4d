"""The base as a torch module, whole or cut; shared by the peers that start from torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel

from benchmarks.peers.harness import CUT_BLOCKS


def load_decoder(base: Path, cut: bool, dtype: torch.dtype = torch.float32) -> Any:
    """The decoder of a Llama base without its LM head, in evaluation mode.

    cut: keep the first CUT_BLOCKS blocks and no final norm, so that the last hidden state is the one that
    the embedded bundle reads.
    """
    config = AutoConfig.from_pretrained(base)
    # transformers 4 (optimum-onnx) does not know the name under which transformers 5 wrote the rotary base
    config.rope_theta = json.loads((base / "config.json").read_text())["rope_parameters"]["rope_theta"]
    model = AutoModel.from_pretrained(base, config=config, dtype=dtype).eval()
    if cut:
        model.layers = model.layers[:CUT_BLOCKS]
        model.norm = torch.nn.Identity()
        model.config.num_hidden_layers = CUT_BLOCKS
    return model
