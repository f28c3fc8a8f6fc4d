"""Mixtures of LoRA experts: routing against a direct loop, the balance loss by hand, saving, and the exported layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from qe_edge.errors import InputError
from qe_edge_train.adapters.experts import (
    ExpertLinear,
    add_experts,
    balance_loss,
    experts_state,
    has_experts,
    load_experts,
    recorded_routing,
    save_experts,
    set_experts,
)

TOKENS = torch.tensor([[5, 9, 33, 2], [7, 1, 8, 0]])


def layer(experts: int, base: nn.Linear | None = None, dropout: float = 0.0) -> ExpertLinear:
    """A layer 24 -> 10 (or `base`) with experts of rank 4 that already do something."""
    torch.manual_seed(2)
    linear = ExpertLinear(base or nn.Linear(24, 10), experts, rank=4, alpha=16, dropout=dropout)
    nn.init.normal_(linear.experts_b)
    return linear


def make_decoder(hidden: int = 16, depth: int = 3) -> LlamaModel:
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=hidden,
        intermediate_size=24,
        num_hidden_layers=depth,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    decoder = LlamaModel(config)
    decoder.eval()
    return decoder


def with_experts(counts: list[int], moved: bool = True) -> LlamaModel:
    """A decoder with experts; `moved`: their B are not zero any more."""
    decoder = make_decoder(depth=len(counts))
    add_experts(decoder, counts, rank=2, alpha=4, dropout=0.0)
    if moved:
        for name, tensor in experts_state(decoder).items():
            if "experts_b" in name:
                nn.init.normal_(tensor, std=0.3)
    return decoder


def output(decoder: nn.Module) -> Tensor:
    hidden: Tensor = decoder(input_ids=TOKENS).last_hidden_state
    return hidden


@pytest.mark.parametrize("experts", [2, 3, 5])
def test_a_layer_equals_a_loop_over_tokens_and_experts(experts: int) -> None:
    linear = layer(experts)
    assert linear.router is not None
    x = torch.randn(2, 3, 24)
    expected = torch.empty(2, 3, 10)
    for row in range(2):
        for token in range(3):
            vector = x[row, token]
            probability = (vector @ linear.router).softmax(0)
            best = probability.argsort(descending=True)[:2]
            y = linear.base.weight @ vector + linear.base.bias
            for expert in best:
                a = linear.experts_a[:, 4 * expert : 4 * expert + 4].T
                b = linear.experts_b[4 * expert : 4 * expert + 4].T
                y = y + probability[expert] / probability[best].sum() * 16 / 4 * (b @ (a @ vector))
            expected[row, token] = y

    torch.testing.assert_close(linear(x), expected, atol=1e-6, rtol=1e-5)


def test_at_most_two_gates_are_open_and_they_sum_to_one() -> None:
    gates = layer(6).gates(torch.randn(50, 24))

    assert ((gates > 0).sum(-1) == 2).all()
    torch.testing.assert_close(gates.sum(-1), torch.ones(50))


def test_ties_open_no_more_than_two_gates() -> None:
    assert ((layer(5).gates(torch.zeros(3, 24)) > 0).sum(-1) == 2).all()


def test_one_expert_is_plain_lora() -> None:
    base = nn.Linear(24, 10)
    linear = layer(1, base)
    config = LoraConfig(r=4, lora_alpha=16, lora_dropout=0.0, target_modules=["0"])
    plain = get_peft_model(nn.Sequential(nn.Linear(24, 10)), config)
    wrapped: Any = plain.get_submodule("base_model.model.0")
    wrapped.base_layer.load_state_dict(base.state_dict())
    wrapped.lora_A["default"].weight.data = linear.experts_a.data.T
    wrapped.lora_B["default"].weight.data = linear.experts_b.data.T
    x = torch.randn(2, 3, 24)

    assert linear.router is None
    torch.testing.assert_close(linear(x), plain(x))


def test_fresh_experts_change_nothing() -> None:
    expected = output(make_decoder())
    decoder = with_experts([1, 2, 4], moved=False)

    torch.testing.assert_close(output(decoder), expected, atol=0, rtol=0)


def test_experts_lie_on_the_seven_linear_maps_and_the_base_is_frozen() -> None:
    decoder = with_experts([1, 2, 4])
    layers = {name: module for name, module in decoder.named_modules() if isinstance(module, ExpertLinear)}
    trained = {name for name, parameter in decoder.named_parameters() if parameter.requires_grad}

    assert has_experts(decoder)
    assert not has_experts(make_decoder())
    assert len(layers) == 21
    assert {name.split(".")[-1] for name in layers} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }
    assert [layers[f"layers.{block}.mlp.up_proj"].experts for block in range(3)] == [1, 2, 4]
    assert trained == set(experts_state(decoder))
    assert len(trained) == 7 * 2 + 7 * 3 + 7 * 3  # no router for a single expert


@pytest.mark.parametrize("counts", [[1, 2], [1, 2, 0], [1, 2, 3, 4]])
def test_counts_that_do_not_fit_the_blocks_are_refused(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="do not fit 3 blocks"):
        add_experts(make_decoder(), counts, rank=2, alpha=4, dropout=0.0)


def test_gradients_reach_every_router_and_expert() -> None:
    decoder = with_experts([1, 2, 4]).train()

    output(decoder).square().sum().backward()

    for name, tensor in experts_state(decoder).items():
        assert tensor.grad is not None, name
        assert tensor.grad.abs().max() > 0, name


def test_the_balance_loss_is_the_hand_worked_one() -> None:
    # three experts, four tokens; probabilities chosen, so scores are their logarithms
    probability = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.1, 0.3], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1]])
    # best two: {0, 1}, {0, 2}, {1, 0}, {0, 1}: f = 4/8, 3/8, 1/8; p = .45, .375, .175
    expected = 3 * (0.5 * 0.45 + 0.375 * 0.375 + 0.125 * 0.175)

    assert balance_loss([probability.log()]).item() == pytest.approx(expected, rel=1e-6)
    assert balance_loss([probability.log(), torch.zeros(4, 2)]).item() == pytest.approx(expected + 1, rel=1e-6)


def test_tokens_outside_the_mask_do_not_count() -> None:
    scores = torch.randn(2, 4, 3)
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    padded = scores.clone()
    padded[~mask] = 50.0 * torch.randn(4, 3)

    assert balance_loss([padded], mask) == balance_loss([scores], mask)
    assert balance_loss([padded], mask).item() == pytest.approx(balance_loss([scores[mask][None]]).item(), rel=1e-6)
    assert balance_loss([padded]) != balance_loss([scores])


def test_the_routing_of_one_forward_pass_is_recorded_in_training_only() -> None:
    decoder = with_experts([1, 2, 4])
    output(decoder.train())
    with recorded_routing(decoder) as routing:
        output(decoder)
    with recorded_routing(decoder) as evaluated:
        output(decoder.eval())

    assert [list(scores.shape) for scores in routing] == [[2, 4, 2]] * 7 + [[2, 4, 4]] * 7
    assert evaluated == []


def test_the_balance_loss_of_a_layer_trains_its_router() -> None:
    linear = layer(3).train()
    with recorded_routing(linear) as routing:
        linear(torch.randn(8, 24))
    balance_loss(routing).backward()

    assert linear.router is not None
    assert linear.router.grad is not None
    assert linear.router.grad.any()
    assert linear.experts_a.grad is None
    assert linear.experts_b.grad is None


def test_a_decoder_of_single_experts_has_no_balance_loss() -> None:
    decoder = with_experts([1, 1]).train()
    with recorded_routing(decoder) as routing:
        output(decoder)

    assert balance_loss(routing).item() == 0


def test_checkpointed_activations_give_the_same_gradients_and_no_second_record() -> None:
    gradients = []
    for checkpointed in (False, True):
        decoder = with_experts([1, 2, 4]).train()
        if checkpointed:
            decoder.activation_checkpointing_enable({"use_reentrant": False})
        with recorded_routing(decoder) as routing:
            hidden = decoder(input_ids=TOKENS, use_cache=False).last_hidden_state
        recorded = len(routing)
        (hidden.square().mean() + balance_loss(routing)).backward()
        assert len(routing) == recorded == 14
        gradients.append({name: tensor.grad for name, tensor in experts_state(decoder).items()})

    torch.testing.assert_close(gradients[1], gradients[0])


def test_dropout_comes_before_the_experts_but_not_before_base_or_router() -> None:
    linear = layer(3, dropout=0.5).train()
    assert linear.router is not None
    x = torch.randn(4, 24)
    with torch.no_grad():
        linear.recorded = []
        torch.manual_seed(9)
        y = linear(x)
        torch.manual_seed(9)
        dropped = nn.functional.dropout(x, 0.5)
    gates = linear.gates(x).repeat_interleave(4, -1)
    expected = linear.base(x) + 4 * (gates * (dropped @ linear.experts_a)) @ linear.experts_b

    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(linear.recorded[0], x @ linear.router)


def test_under_autocast_weights_and_router_stay_in_float32() -> None:
    linear = layer(3, nn.Linear(24, 10, dtype=torch.bfloat16)).train()
    x = torch.randn(5, 24).bfloat16()
    linear.recorded = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = linear(x)
    plain = linear(x)

    assert y.dtype == plain.dtype == torch.bfloat16
    assert {scores.dtype for scores in linear.recorded} == {torch.float32}
    assert linear.experts_a.dtype == linear.experts_b.dtype == torch.float32
    torch.testing.assert_close(y.float(), plain.float(), atol=0.15, rtol=0.05)


def test_experts_train_beside_a_base_in_four_bit() -> None:
    base = Linear4bit(64, 32, bias=False, compute_dtype=torch.float32, quant_type="nf4")
    base.load_state_dict({"weight": torch.randn(32, 64)})
    base = base.to("cpu")
    base.requires_grad_(False)
    linear = layer(3, base)
    x = torch.randn(2, 5, 64)
    gates = linear.gates(x).repeat_interleave(4, -1)
    expected = base(x) + 4 * (gates * (x @ linear.experts_a)) @ linear.experts_b

    y = linear(x)
    y.square().sum().backward()

    assert base.weight.dtype == torch.uint8
    torch.testing.assert_close(y, expected)
    assert linear.experts_a.grad is not None
    assert linear.router is not None
    assert linear.router.grad is not None


def test_saved_experts_come_back_exactly(tmp_path: Path) -> None:
    decoder = with_experts([1, 2, 4])
    save_experts(decoder, tmp_path)

    again = make_decoder()
    load_experts(again, tmp_path)

    torch.testing.assert_close(experts_state(again), experts_state(decoder), atol=0, rtol=0)
    torch.testing.assert_close(output(again), output(decoder), atol=0, rtol=0)
    assert json.loads((tmp_path / "experts.json").read_text()) == {
        "format": "qe-edge experts 1",
        "counts": [1, 2, 4],
        "rank": 2,
        "alpha": 4,
        "dropout": 0.0,
    }


def test_weights_can_be_set_anew(tmp_path: Path) -> None:
    decoder = with_experts([1, 2, 4])
    save_experts(decoder, tmp_path)
    before = output(decoder)
    with torch.no_grad():
        for tensor in experts_state(decoder).values():
            tensor.add_(1)

    set_experts(decoder, tmp_path)

    torch.testing.assert_close(output(decoder), before, atol=0, rtol=0)


def test_experts_of_another_depth_are_refused(tmp_path: Path) -> None:
    save_experts(with_experts([1, 2, 4]), tmp_path)

    with pytest.raises(InputError, match=r"experts.json: experts for 3 blocks, but the decoder has 2"):
        load_experts(make_decoder(depth=2), tmp_path)


def test_experts_of_another_width_are_refused(tmp_path: Path) -> None:
    save_experts(with_experts([1, 2, 4]), tmp_path)

    with pytest.raises(InputError, match=r"layers.0.mlp.down_proj.experts_b is \[2, 16\], .* needs \[2, 32\]"):
        load_experts(make_decoder(hidden=32), tmp_path)


def test_experts_of_other_counts_are_refused(tmp_path: Path) -> None:
    save_experts(with_experts([2, 2]), tmp_path)

    with pytest.raises(InputError, match=r"layers.0.mlp.down_proj.experts_a is \[24, 4\], .* needs \[24, 2\]"):
        set_experts(with_experts([1, 2]), tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ("{}", "damaged"),
        ('{"format": "qe-edge experts 1", "counts": [1, 2, 4]}', "damaged"),
        ('{"format": "qe-edge experts 9"}', "not of the format 'qe-edge experts 1'"),
    ],
)
def test_a_damaged_description_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "experts.json").write_text(content)

    with pytest.raises(InputError, match=message):
        load_experts(make_decoder(), tmp_path)


def test_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"experts.json: cannot be read"):
        load_experts(make_decoder(), tmp_path)
    with pytest.raises(InputError, match=r"experts.safetensors: cannot be read"):
        set_experts(with_experts([1]), tmp_path)


@pytest.mark.parametrize("experts", [1, 2, 4])
def test_the_exported_layer_computes_the_same_for_any_batch_and_length(experts: int, tmp_path: Path) -> None:
    linear = layer(experts).eval()
    free = torch.export.Dim.DYNAMIC
    with torch.no_grad():
        program = torch.onnx.export(
            linear,
            (torch.randn(3, 5, 24),),
            dynamo=True,
            opset_version=23,
            verbose=False,
            dynamic_shapes=({0: free, 1: free},),
        )
    assert program is not None
    program.save(tmp_path / "layer.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "layer.onnx", providers=["CPUExecutionProvider"])
    for shape in ((3, 5, 24), (1, 1, 24), (2, 17, 24)):
        x = torch.randn(shape)
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        np.testing.assert_allclose(found, linear(x).detach().numpy(), atol=1e-5, rtol=1e-5)

    names = set(program.model.graph.initializers)
    assert {"experts_a", "experts_b"} <= names
    assert ("router" in names) == (experts > 1)
