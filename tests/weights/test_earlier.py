"""Checkpoints of version 0.1 give the same numbers, and their runs go on."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from spanets import load_weights
from spanets.recipe import parse_recipe
from spanets.sources import open_checkpoint
from spanets.tasks import load_task
from spanets.training.earlier import follow_names
from spanets.weights.earlier import earlier_name, is_earlier_name, rename_all

CHECKPOINT = Path(__file__).parents[1] / "reference" / "version_0_1.ckpt"

# What version 0.1 computed for `images` of seed 0.
LOGITS = [
    [0.044781025499105453, -0.05700618401169777, -0.0099783381447196],
    [0.028754163533449173, 0.01670622080564499, -0.01411826815456152],
]


@pytest.fixture
def content():
    return torch.load(CHECKPOINT, weights_only=True)


def assert_same_numbers(model: nn.Module) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        logits = model.eval()(torch.randn(2, 3, 48, 64))
    torch.testing.assert_close(logits, torch.tensor(LOGITS), rtol=0, atol=1e-6)  # float32


def test_a_checkpoint():
    assert_same_numbers(open_checkpoint(CHECKPOINT).network)


@pytest.mark.parametrize("fused", [True, False])
def test_a_file_of_weights(content, fused):
    arguments = content["spanets"]["model_args"]
    model = timm.create_model("spanet_nano", num_classes=3, fused=fused, **arguments)
    report = load_weights(model, CHECKPOINT)
    assert not report.fresh and not report.skipped
    assert_same_numbers(model)


def test_a_state_dict_of_ones_own(content):
    weights = {k.removeprefix("model."): v for k, v in content["state_dict"].items()}
    model = timm.create_model("spanet_nano", num_classes=3, **content["spanets"]["model_args"])
    model.load_state_dict(weights)
    assert_same_numbers(model)


def test_states_follow_the_names_of_parameters(content):
    """Of Muon, and of another optimizer with all parameters in one group."""
    source = open_checkpoint(CHECKPOINT)
    recipe = parse_recipe(source.info.recipe)
    module = load_task("classification")(recipe).make_module(source.network, source.info, 5)
    module.on_load_checkpoint(content)
    (optimizer,), _ = module.configure_optimizers()
    saved = content["optimizer_states"][0]
    optimizer.load_state_dict(saved)
    weights = content["state_dict"]
    spared = [k for k, v in weights.items() if v.ndim <= 1 or k.endswith(".bias")]
    groups = [spared, [key for key in weights if key not in spared]]  # timm's: without decay first
    names = {id(value): name for name, value in module.named_parameters()}
    checked = 0
    for group, before in zip(saved["param_groups"], groups, strict=True):
        for number, key in zip(group["params"], before, strict=True):
            (new,) = rename_all({key: weights[key]})
            (ours,) = (v for p, v in optimizer.state.items() if names[id(p)] == new)
            theirs = saved["state"][number]
            for kind in ("momentum_buffer", "exp_avg", "exp_avg_sq"):
                if kind in theirs:
                    torch.testing.assert_close(ours[kind].flatten(), theirs[kind].flatten())
                    assert ours[kind].shape == module.get_parameter(new).shape
                    checked += 1
    assert checked > 2 * len(spared)


def test_one_group_of_all_parameters(content):
    """Without weight decay: there the order of a context's parameters has changed."""
    source = open_checkpoint(CHECKPOINT)
    wrapped = nn.Module()
    wrapped.model = source.network
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1, momentum=0.9)
    saved = list(content["state_dict"])
    states = {i: {"momentum_buffer": content["state_dict"][key]} for i, key in enumerate(saved)}
    group = {**optimizer.param_groups[0], "params": list(range(len(saved)))}
    follow_names(optimizer, wrapped, saved)
    optimizer.load_state_dict({"state": states, "param_groups": [group]})
    for parameter in wrapped.parameters():
        assert torch.equal(optimizer.state[parameter]["momentum_buffer"], parameter)


def test_names_that_did_not_change(content):
    for key in content["state_dict"]:
        (new,) = rename_all({key: content["state_dict"][key]})
        assert is_earlier_name(key) == (new != key)
        assert earlier_name(new) == key
    other = {"encoder.context.weight": torch.zeros(2)}  # of another network
    assert rename_all(other) == other


def test_the_order_of_heads_has_moved():
    """SPANetV2's mixers held it themselves; by any loader."""
    model = timm.create_model("spanetv2_nano_pure", depths=(1, 1, 1, 1), num_classes=3)
    earlier = {earlier_name(key): value for key, value in model.state_dict().items()}
    moved = [key for key in earlier if key.endswith("token_mixer.interleaved")]
    assert len(moved) == 4 and all(map(is_earlier_name, moved))
    assert rename_all(earlier).keys() == model.state_dict().keys()
    model.load_state_dict(dict(earlier))
    assert not load_weights(model, earlier).skipped
