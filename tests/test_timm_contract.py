"""What timm expects of a model, for each that is registered.

Structure is checked on the meta device, which costs nothing; values at small sizes.
"""

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import timm
import torch
from networks import CHOICES, plain_layers
from timm.models import group_parameters
from timm.models.metaformer import MetaFormer
from timm.optim import create_optimizer_v2
from timm.optim._param_groups import param_groups_layer_decay, param_groups_weight_decay
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from spanets.backbones.layers import INIT_STD, init_weight
from spanets.backbones.spanet import SPANet
from spanets.backbones.spanetv2 import SPANetV2

NANO, NANO_V2 = "spanet_nano", "spanetv2_nano_pure"  # for options of one family
STRIDES = [4, 8, 16, 32]

# Trainable parameters as published (SPANet, Table 1; SPANetV2).
PUBLISHED = {
    "spanet_small": 28_605_096,
    "spanet_medium": 41_686_952,
    "spanet_mediumx": 54_768_808,
    "spanet_base": 75_856_168,
    "spanet_basex": 99_718_312,
    "spanetv2_s18_pure": 29_162_892,
    "spanetv2_s18_hybrid": 26_991_948,
    "spanetv2_s36_pure": 44_098_608,
    "spanetv2_s36_hybrid": 40_669_104,
    "spanetv2_m36_pure": 62_934_832,
    "spanetv2_m36_hybrid": 58_334_896,
    "spanetv2_b36_pure": 109_557_808,
    "spanetv2_b36_hybrid": 101_802_544,
}

Build = Callable[..., nn.Module]


def images(*size: int, batch: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, *size, generator=generator)


def meta_images(*size: int) -> Tensor:
    return torch.empty(2, 3, *size, device="meta")


def with_weights_of(source: nn.Module, name: str, **arguments: object) -> nn.Module:
    """Another form of the model, holding the very tensors of `source`."""
    model = timm.create_model(name, device="meta", **arguments).eval()
    own = model.state_dict()
    names = {key: _name_in_network(key) for key in own}
    given = source.state_dict()
    model.load_state_dict({key: given[name] for key, name in names.items()}, assign=True)
    return model


def _name_in_network(key: str) -> str:
    key = key.removeprefix("model.").removeprefix("graph_module.")
    return key.replace("stages_", "stages.")


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    """The same operations on the same numbers: bit for bit."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


# ---- configuration


@pytest.mark.parametrize(("name_", "count"), PUBLISHED.items())
def test_parameters_are_as_many_as_published(name_, count):
    model = timm.create_model(name_, device="meta")
    assert sum(p.numel() for p in model.parameters()) == count
    assert all(p.requires_grad for p in model.parameters())
    # But for the order of heads that SPANetV2's weights were trained with, all is in parameters.
    assert {key.split(".")[-1] for key, _ in model.named_buffers()} <= {"interleaved"}


def test_config_describes_the_model(skeleton):
    config = skeleton.default_cfg
    first_conv = skeleton.get_submodule(config["first_conv"])
    assert first_conv.in_channels == skeleton.in_chans == config["input_size"][0]
    classifier = skeleton.get_submodule(config["classifier"])
    assert classifier in list(skeleton.get_classifier().modules())
    assert [p.shape[0] for p in classifier.parameters()] == [config["num_classes"]] * 2
    assert skeleton.num_classes == config["num_classes"]
    features = skeleton.forward_features(meta_images(*config["input_size"][1:]))
    assert features.shape == (2, skeleton.num_features, *config["pool_size"])
    assert skeleton.forward_head(features).shape == (2, config["num_classes"])
    pooled = skeleton.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, skeleton.head_hidden_size)
    assert skeleton(meta_images(*config["min_input_size"][1:])).shape == (2, skeleton.num_classes)


def test_config_prepares_images(name):
    config = timm.get_pretrained_cfg(name)
    assert len(config.mean) == len(config.std) == 3
    assert config.interpolation == "bicubic"
    assert 0 < config.crop_pct <= 1


def test_unknown_argument_is_named(name):
    with pytest.raises(TypeError, match="not_an_argument"):
        timm.create_model(name, device="meta", not_an_argument=1)


@pytest.mark.parametrize("channels", [1, 13])
def test_other_image_channels(small, channels):
    model = timm.create_model(small, device="meta", in_chans=channels)
    assert model.in_chans == channels
    assert model(torch.empty(1, channels, 64, 64, device="meta")).shape == (1, 1000)


def test_device_and_type_of_every_tensor(name):
    model = timm.create_model(name, device="meta", dtype=torch.bfloat16)
    tensors = [*model.parameters(), *model.buffers()]
    assert {t.device.type for t in tensors} == {"meta"}
    assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.bfloat16}


def test_initialisation_after_the_meta_device(small):
    """A model built without values and initialised has the constructor's distributions."""
    constructed = dict(timm.create_model(small).named_parameters())
    model = timm.create_model(small, device="meta").to_empty(device="cpu")
    for value in model.parameters():
        nn.init.constant_(value, float("nan"))
    model.init_weights()
    for key, value in model.named_parameters():
        assert value.isfinite().all(), key
        if value.numel() >= 400:
            # The standard deviation of 400 samples is within 4 % at one sigma.
            assert value.std().item() == pytest.approx(constructed[key].std().item(), rel=0.25), key
    norms = [m for m in model.modules() if isinstance(m, nn.GroupNorm | nn.LayerNorm)]
    assert norms
    assert all((norm.weight == 1).all() for norm in norms)
    like = dict(timm.create_model(small).named_buffers())
    assert all(torch.equal(value, like[key]) for key, value in model.named_buffers())


def test_no_weight_starts_far_out(monkeypatch):
    """The lowest uniform number is -1 in float32, and the normal one made of it infinite."""
    monkeypatch.setattr(Tensor, "uniform_", lambda values, low, high: values.fill_(low))
    weight = torch.empty(8)
    init_weight(weight)
    assert weight.abs().max() <= 6.001 * INIT_STD


def test_weights_have_the_papers_deviation():
    torch.manual_seed(0)
    weight = torch.empty(2**20)
    init_weight(weight)
    assert weight.std().item() == pytest.approx(INIT_STD, rel=0.01)
    assert weight.mean().item() == pytest.approx(0.0, abs=1e-4)


def test_drop_path_grows_over_all_blocks(name):
    model = timm.create_model(name, device="meta", drop_path_rate=0.3)
    blocks = [block for stage in model.stages for block in stage.blocks]
    rates = [getattr(b.drop_path1, "drop_prob", 0.0) for b in blocks]
    assert rates == [getattr(b.drop_path2, "drop_prob", 0.0) for b in blocks]
    expected = [0.3 * i / (len(blocks) - 1) for i in range(len(blocks))]
    assert rates == pytest.approx(expected, abs=1e-6)  # timm computes them in float32


def test_stages_that_do_not_match():
    with pytest.raises(ValueError, match="3, 4 and 4 stages"):
        timm.create_model(NANO, dims=(8, 8, 8))


@pytest.mark.parametrize(
    ("scale", "scaled"), [("res_scale", "res_scale"), ("layer_scale", "layer_scale"), ("none", "-")]
)
def test_branch_scales_in_the_last_two_stages(scale, scaled):
    model = timm.create_model(NANO, device="meta", branch_scale=scale)
    stages = {key.split(".")[1] for key, _ in model.named_parameters() if f".{scaled}" in key}
    assert stages == (set() if scale == "none" else {"2", "3"})
    assert any(key.endswith("_scale1.scale") for key in model.state_dict()) == (scale != "none")


def test_no_ring():
    """timm's factory drops arguments that are None, so there is a word for it."""
    assert timm.create_model(NANO, device="meta", ring="none").ring is None
    assert timm.create_model(NANO, device="meta", ring=0.2).ring == 0.2
    with pytest.raises(ValueError, match="ring is 'nil', allowed: a number or 'none'"):
        timm.create_model(NANO, device="meta", ring="nil")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"merge": "stacked"}, "merge is 'stacked', allowed: interleaved, concatenated"),
        ({"spectral_method": "basis"}, "spectral_method is 'basis', allowed: auto, matmul, fft"),
        ({"mixers": ("conv",) * 4}, "mixers has 'conv', allowed: adaptive, local_attention"),
        ({"mixers": ("adaptive",)}, "dims, depths and mixers name 4, 4 and 1 stages"),
        ({"img_size": 31}, "img_size is 31, must be one or two sides from 32 up"),
        ({"img_size": 224.0}, "img_size is 224.0, must be one or two sides from 32 up, in whole"),
        ({"img_size": (64.0, 64)}, r"img_size is \(64.0, 64\), must be one or two sides"),
        ({"img_size": (64, 64, 3)}, r"img_size is \(64, 64, 3\), must be one or two sides"),
        ({"global_pool": "catavgmax"}, "global_pool is 'catavgmax', which changes"),
        ({"dims": (18, 36, 72, 144)}, "18 channels do not split into 4 heads"),
    ],
)
def test_bad_arguments_of_spanetv2(arguments, message):
    with pytest.raises(ValueError, match=message):
        timm.create_model(NANO_V2, device="meta", **arguments)


def test_filters_are_made_for_the_image_size(build):
    """At its own size a filter is used as it is; that is what `img_size` names."""
    model = build(NANO_V2, img_size=(64, 90)).eval()
    with torch.no_grad():
        taps = model.forward_intermediates(images(64, 90), intermediates_only=True)
    sizes = [stage.blocks[0].token_mixer.filter.map_size for stage in model.stages]
    assert sizes == [tuple(tap.shape[2:]) for tap in taps]


def test_unknown_branch_scale():
    with pytest.raises(ValueError, match="branch_scale is 'res', allowed: res_scale, layer_scale"):
        timm.create_model(NANO, branch_scale="res")


# ---- forward and backward


def test_forward(model):
    x = images(64, 64, batch=2)
    with torch.no_grad():
        logits = model(x)
        assert logits.shape == (2, model.num_classes)
        assert logits.isfinite().all()
        assert_same([logits], [model.forward_head(model.forward_features(x))])
    # Images differ by as much as their logits' own size, or the input would not be looked at.
    assert (logits[0] - logits[1]).std() > 0.1 * logits.std()


def test_every_parameter_gets_a_gradient(name, build):
    model = build(name, num_classes=7).train()
    model(images(64, 64, batch=2)).square().sum().backward()
    for key, value in model.named_parameters():
        assert value.grad is not None, key
        assert value.grad.isfinite().all(), key
        assert value.grad.any(), key


def test_dropout_and_drop_path_act_in_training_alone(small, build):
    model = build(small, drop_rate=0.5, drop_path_rate=0.5)
    x = images(64, 64)
    with torch.no_grad():
        assert not torch.equal(model.train()(x), model(x))
        assert_same([model.eval()(x)], [model(x)])
        assert_same([model(x)], [with_weights_of(model, small)(x)])


# ---- classifier


def test_reset_classifier(skeleton):
    features = torch.empty(2, skeleton.num_features, 3, 4, device="meta")
    pooled = skeleton.forward_head(features, pre_logits=True).shape
    skeleton.reset_classifier(7)
    assert skeleton.forward_head(features).shape == (2, 7)
    skeleton.reset_classifier(0)
    assert skeleton.num_classes == 0
    assert skeleton.forward_head(features).shape == pooled
    skeleton.reset_classifier(0, "")
    assert skeleton.forward_head(features).shape == features.shape
    skeleton.reset_classifier(5, "avg")
    assert skeleton.forward_head(features).shape == (2, 5)
    assert skeleton.num_classes == 5


def test_model_without_classifier(small):
    model = timm.create_model(small, device="meta", num_classes=0)
    features = torch.empty(2, model.num_features, 3, 4, device="meta")
    assert model.forward_head(features).shape == (2, model.head_hidden_size)
    model = timm.create_model(small, device="meta", num_classes=0, global_pool="")
    assert model.forward_head(features).shape == features.shape


def test_reset_classifier_keeps_pooling(small, build):
    model = build(small, global_pool="max").eval()
    features = torch.rand(2, model.num_features, 3, 4)
    norm = getattr(model.head, "norm", nn.Identity())
    expected = norm(features.amax((2, 3), keepdim=True)).flatten(1)
    for classes in (5, 0):
        model.reset_classifier(classes)
        assert_same([model.forward_head(features, pre_logits=True)], [expected])


def test_pooling_by_concatenation():
    model = timm.create_model(NANO, device="meta", global_pool="catavgmax")
    x = meta_images(64, 64)
    pooled = model.forward_head(model.forward_features(x), pre_logits=True)
    assert pooled.shape[1] == model.head_hidden_size == 2 * model.num_features
    model.reset_classifier(5, "avg")
    assert model.head_hidden_size == model.num_features
    assert model(x).shape == (2, 5)


@pytest.mark.parametrize("training", [True, False])
def test_reset_classifier_keeps_device_type_and_mode(skeleton, training):
    skeleton.to(torch.float64).train(training)
    skeleton.reset_classifier(0)
    skeleton.reset_classifier(3, "max")
    parameters = list(skeleton.get_classifier().parameters())
    assert parameters
    assert {(p.device.type, p.dtype) for p in parameters} == {("meta", torch.float64)}
    assert {module.training for module in skeleton.modules()} == {training}


def test_reset_classifier_on_another_device_and_type(small):
    model = timm.create_model(small)
    model.reset_classifier(3, device="meta", dtype=torch.float16)
    found = {(p.device.type, p.dtype) for p in model.get_classifier().parameters()}
    assert found == {("meta", torch.float16)}


def test_frozen_stays_frozen(skeleton):
    skeleton.requires_grad_(False)
    for reset in [(0,), (0, "")]:
        skeleton.reset_classifier(*reset)
        assert not [key for key, p in skeleton.named_parameters() if p.requires_grad]


# ---- features


def test_features_only(name, model):
    height, width = 64, 96
    features = with_weights_of(model, name, features_only=True)
    channels = features.feature_info.channels()
    assert channels == [info["num_chs"] for info in model.feature_info]
    assert features.feature_info.reduction() == STRIDES
    with torch.no_grad():
        maps = features(images(height, width))
        taps = model.forward_intermediates(images(height, width), intermediates_only=True)
    expected = [(1, c, height // s, width // s) for c, s in zip(channels, STRIDES, strict=True)]
    assert [tuple(m.shape) for m in maps] == expected
    assert_same(maps, taps)


@pytest.mark.parametrize(
    ("out_indices", "taken"),
    [((0,), [0]), ((1, 3), [1, 3]), ((0, 1, 2), [0, 1, 2]), ((-2,), [2]), (2, [2, 3])],
)
def test_some_features(small, out_indices, taken):
    model = timm.create_model(small, device="meta", features_only=True, out_indices=out_indices)
    info = model.feature_info
    maps = model(meta_images(64, 64))
    assert [m.shape[1] for m in maps] == info.channels()
    assert [64 // m.shape[2] for m in maps] == info.reduction() == [STRIDES[i] for i in taken]
    # What the maps do not need is gone: a parameter without a gradient stops distributed training.
    assert list(dict(model.named_children())) == [
        "stem",
        *(f"stages_{i}" for i in range(max(taken) + 1)),
    ]


@pytest.mark.parametrize("kind", ["list", "dict", "hook", "fx", "getter"])
def test_other_classes_of_features(small, build, kind):
    model = build(small).eval()
    features = timm.create_model(small, features_only=True, feature_cls=kind).eval()
    given = model.state_dict()
    features.load_state_dict({key: given[_name_in_network(key)] for key in features.state_dict()})
    x = images(64, 64)
    with torch.no_grad():
        maps, wanted = features(x), model.forward_intermediates(x, intermediates_only=True)
    maps = list(maps.values()) if isinstance(maps, dict) else maps
    assert len(maps) == len(wanted)
    for found, right in zip(maps, wanted, strict=True):
        # A symbolic trace runs the plain forms, which round differently.
        assert (found - right).abs().max() <= 1e-5 * right.abs().max()
    if kind in ("list", "dict"):
        assert {f"stages_{i}" for i in range(len(wanted))} <= dict(features.named_children()).keys()


@pytest.mark.parametrize("kind", ["list", "dict", "hook", "fx"])
def test_output_norms_that_would_be_dropped_are_refused(small, kind):
    arguments = {"device": "meta", "features_only": True, "output_norm": True}
    with pytest.raises(ValueError, match=f"output_norm has no effect on maps of .*'{kind}'"):
        timm.create_model(small, feature_cls=kind, **arguments)
    assert timm.create_model(small, feature_cls="getter", **arguments).model.output_norms


def test_extractors_of_earlier_versions_load(small):
    """`features_only=True` held the network in `model`, without its head and norm."""
    features = timm.create_model(small, features_only=True)
    state = {f"model.{_name_in_network(key)}": v for key, v in features.state_dict().items()}
    again = timm.create_model(small, features_only=True, device="meta")
    outer = nn.ModuleDict({"encoder": again})
    given = {f"encoder.{key}": value for key, value in state.items()}
    assert not any(outer.load_state_dict(given, assign=True))
    assert_same(list(again.parameters()), list(features.parameters()))
    assert next(iter(given)).startswith("encoder.model.")  # the caller's stays as it was


def test_parts_that_run_in_order_are_the_network(small):
    """Tools run the children themselves (torchvision's IntermediateLayerGetter)."""
    features = timm.create_model(small, features_only=True).eval()
    x = y = images(64, 64)
    maps = []
    with torch.no_grad():
        for name, part in features.named_children():
            y = part(y)
            maps += [y] * (name != "stem")
        assert_same(features(x), maps)


def test_output_norms_are_no_parts(small):
    """Tools that run the children would leave them out."""
    features = timm.create_model(small, features_only=True, output_norm=True, device="meta")
    assert [name for name, _ in features.named_children()] == ["model"]


def test_logits_of_each_position(small, build):
    model = build(small, global_pool="", num_classes=5).eval()
    with torch.no_grad():
        x = images(64, 96)
        maps = model.forward_head(model.forward_features(x))
        assert maps.shape[:2] == (1, 5) and maps.shape[2:] == model.forward_features(x).shape[2:]


def test_features_at_output_norms(small, build):
    """The backbone of the released detectors: each map through a norm of its own."""
    features = build(small, features_only=True, output_norm=True).eval()
    norms = features.model.output_norms
    x = images(64, 64)
    with torch.no_grad():
        maps = features(x)
        y, raw = features.model.stem(x), []
        for stage in features.model.stages:
            y = stage(y)
            raw.append(y)
        assert_same(maps, [norm(tap) for norm, tap in zip(norms, raw, strict=True)])
        normed = features.model.forward_intermediates(x, norm=True, intermediates_only=True)
        assert_same(normed, maps)


@pytest.mark.parametrize("out_indices", [(0, 2), (3,)])
def test_some_features_at_output_norms(small, out_indices):
    model = timm.create_model(
        small, device="meta", features_only=True, output_norm=True, out_indices=out_indices
    )
    assert [m.shape[1] for m in model(meta_images(64, 64))] == model.feature_info.channels()
    norms = {int(k.split(".")[2]) for k in model.state_dict() if k.startswith("model.output_norms")}
    assert norms == set(out_indices)


def test_forward_intermediates(model):
    x = images(64, 64)
    with torch.no_grad():
        features = model.forward_features(x)
        final, taps = model.forward_intermediates(x)
        assert_same([final], [features])
        assert [t.shape[1] for t in taps] == [info["num_chs"] for info in model.feature_info]
        some = model.forward_intermediates(x, indices=[1, -1], norm=True, intermediates_only=True)
        assert_same(some, [taps[1], features])
        assert_same(model.forward_intermediates(x, indices=2, intermediates_only=True), taps[2:])
        assert_same([features], [model.norm(taps[-1])])


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("last", range(4))
def test_forward_intermediates_stops_early(small, build, last, norm):
    model = build(small).eval()
    x = images(32, 32)
    ran = []
    for i, stage in enumerate(model.stages):
        stage.register_forward_hook(lambda *_, i=i: ran.append(i))
    with torch.no_grad():
        final, taps = model.forward_intermediates(x, indices=[last], stop_early=True, norm=norm)
    assert ran == list(range(last + 1))
    if last < 3:  # the final norm fits the last stage alone
        assert_same([final], taps)
    else:
        with torch.no_grad():
            assert_same([final], taps if norm else [model.norm(taps[0])])


@pytest.mark.parametrize("indices", [[4], [-5], 5, 0])
def test_forward_intermediates_of_stages_that_do_not_exist(small, indices):
    model = timm.create_model(small, device="meta")
    with pytest.raises(AssertionError, match="out of range"):
        model.forward_intermediates(meta_images(32, 32), indices=indices)


def test_forward_intermediates_in_another_format(skeleton):
    with pytest.raises(ValueError, match="output_fmt is 'NLC', allowed: NCHW"):
        skeleton.forward_intermediates(meta_images(32, 32), output_fmt="NLC")


@pytest.mark.parametrize("prune_norm", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("last", range(4))
def test_pruned_model(small, build, last, prune_norm):
    model = build(small).eval()
    x = images(32, 32, batch=2)
    with torch.no_grad():
        tap = model.forward_intermediates(x, indices=[last], intermediates_only=True)[0]
    pruned = copy.deepcopy(model)
    assert pruned.prune_intermediate_layers([last - 4], prune_norm=prune_norm) == [last]
    # The norm fits the last stage alone: without that it goes, asked or not.
    features = tap if prune_norm or last < 3 else model.norm(tap)
    with torch.no_grad():
        assert_same(pruned.forward_intermediates(x, [last], intermediates_only=True), [tap])
        assert_same([pruned.forward_features(x), pruned(x)], [features, features])
    assert pruned.num_features == pruned.head_hidden_size == tap.shape[1]
    pruned.reset_classifier(5, "avg")
    pruned.train()(x).square().sum().backward()
    assert not [key for key, value in pruned.named_parameters() if value.grad is None]
    pruned.eval()
    assert pruned.forward_head(tap, pre_logits=True).shape == (2, pruned.head_hidden_size)


def test_pruning_nothing_changes_nothing(small, build):
    model = build(small).eval()
    x = images(32, 32)
    pruned = copy.deepcopy(model)
    assert pruned.prune_intermediate_layers(4, prune_head=False) == [0, 1, 2, 3]
    with torch.no_grad():
        assert_same([pruned(x)], [model(x)])


# ---- optimisers


def test_layer_decay_follows_depth(skeleton):
    """Layers: stem, each block with the downsampling before it or norm after it, head."""
    depth = group_parameters(skeleton, skeleton.group_matcher(), reverse=True)
    assert list(depth) == list(dict(skeleton.named_parameters()))
    assert list(depth.values()) == sorted(depth.values())
    expected = {"stem": 0}
    for i, stage in enumerate(skeleton.stages):
        expected[f"stages.{i}.downsample"] = max(expected.values()) + 1
        for j in range(len(stage.blocks)):
            expected[f"stages.{i}.blocks.{j}."] = max(expected.values()) + (j > 0)
    expected["norm"] = max(expected.values())
    expected["head"] = expected["norm"] + 1
    for key, layer in depth.items():
        assert [i for prefix, i in expected.items() if key.startswith(prefix)] == [layer], key


def test_coarse_layers_are_the_stages(skeleton):
    depth = group_parameters(skeleton, skeleton.group_matcher(coarse=True), reverse=True)
    per_stage = {key.split(".")[1]: i for key, i in depth.items() if key.startswith("stages")}
    assert list(per_stage.values()) == [1, 2, 3, 4]
    assert depth["stem.conv.weight"] == 0


@pytest.mark.parametrize("grouping", [param_groups_layer_decay, param_groups_weight_decay])
def test_weights_alone_decay(skeleton, grouping):
    names = {id(value): key for key, value in skeleton.named_parameters()}
    groups = grouping(skeleton, 0.05, no_weight_decay_list=skeleton.no_weight_decay())
    decay = {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}
    assert decay.keys() == set(names.values())
    parameters = dict(skeleton.named_parameters())
    for key, value in decay.items():
        is_weight = parameters[key].ndim > 1 and not key.endswith(".bias")
        assert value == (0.05 if is_weight else 0), key


def test_no_weight_decay_names_parameters(skeleton):
    assert skeleton.no_weight_decay() <= dict(skeleton.named_parameters()).keys()


def test_optimizer_with_layer_decay(small, build):
    model = build(small, num_classes=3)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=0.01, weight_decay=0.05, layer_decay=0.5)
    parameters = model.stem.conv.weight, next(model.head.parameters())
    before = [value.detach().clone() for value in parameters]
    model(images(32, 32, batch=2)).square().sum().backward()
    for group in optimizer.param_groups:
        group["lr"] = 0.01 * group["lr_scale"]
    optimizer.step()
    stem, head = [(p - b).abs().mean().item() for p, b in zip(parameters, before, strict=True)]
    # Adam's first step is the learning rate, but for decay; the stem's is 0.5 ** depth of it.
    depth = 1 + sum(len(stage.blocks) for stage in model.stages)
    assert head == pytest.approx(0.01, rel=0.1)
    assert stem == pytest.approx(0.01 * 0.5**depth, rel=0.1)


# ---- torch.fx


def test_symbolic_trace(model):
    graph = torch.fx.symbolic_trace(model)
    with torch.no_grad(), plain_layers():
        assert_same([graph(images(37, 50))], [model(images(37, 50))])


def test_feature_extractor_of_torchvision(small, build):
    model = build(small).eval()
    nodes = {f"stages.{i}": f"stage{i}" for i in range(4)}
    extractor = create_feature_extractor(model, {**nodes, "head": "logits"}).eval()
    x = images(64, 64)
    with torch.no_grad(), plain_layers():
        *maps, logits = extractor(x).values()
        assert_same([*maps, logits], [*model.forward_intermediates(x)[1], model(x)])


@pytest.mark.parametrize(("name_", "arguments"), CHOICES, ids=str)
def test_options_trace_and_train(build, name_, arguments):
    model = build(name_, **arguments)
    graph = torch.fx.symbolic_trace(model.eval())
    x = images(64, 80, batch=2)
    with plain_layers():
        ours, theirs = graph(x), model(x)
    if isinstance(theirs, Tensor):
        ours, theirs = [ours], [theirs]
    assert_same(ours, theirs)
    sum(y.square().sum() for y in model.train()(x)).backward()
    assert not [key for key, value in model.named_parameters() if value.grad is None]


# ---- training at less memory, copies


@pytest.mark.parametrize("features_only", [False, True])
def test_gradient_checkpointing(small, build, features_only):
    model = build(small, features_only=features_only).train()
    block = next(m for name, m in model.named_modules() if name.endswith("blocks.0"))
    runs = []
    block.register_forward_pre_hook(lambda *_: runs.append(1))

    def gradients() -> list[Tensor]:
        model.zero_grad()
        outputs = model(images(64, 64, batch=2))
        sum(y.square().sum() for y in outputs).backward()
        return [value.grad.clone() for value in model.parameters()]

    kept = gradients()
    assert len(runs) == 1
    model.set_grad_checkpointing()
    assert_same(gradients(), kept)
    assert len(runs) == 3  # forward, and anew in the backward pass
    model.set_grad_checkpointing(False)
    gradients()
    assert len(runs) == 4


def _pickled(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


def _saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def _restored(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = copy.deepcopy(model)
    for value in other.parameters():
        nn.init.constant_(value, float("nan"))
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


@pytest.mark.parametrize("features_only", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, _pickled, _saved, _restored])
def test_copies_compute_the_same(small, build, duplicate, features_only):
    model = build(small, features_only=features_only).eval()
    x = images(64, 64)
    with torch.no_grad():
        expected = model(x)
        other = duplicate(model)
        for value in model.parameters():
            value.zero_()
        assert_same(list(other(x)), list(expected))


@pytest.mark.parametrize("network", [SPANet, SPANetV2])
def test_nothing_of_timms_metaformer_is_used(network: type[nn.Module]) -> None:
    """Tools know timm's networks by their classes; its methods expect layers that ours lack."""
    nearer = network.__mro__[: network.__mro__.index(MetaFormer)]
    own = {name for parent in nearer for name in vars(parent)}
    assert {name for name in vars(MetaFormer) if not name.startswith("_")} <= own
