"""Released SPANetV2 files: both layouts, classifiers and backbones, and every way to be wrong."""

import pytest
import timm
import torch
from released_names import released_spanetv2 as released
from safetensors.torch import save_file
from torch import Tensor

import spanets
from spanets.weights import WeightsError, load_weights

StateDict = dict[str, Tensor]

TINY = {"dims": (8, 16, 32, 64), "depths": (1, 2, 1, 1), "num_classes": 5, "img_size": 64}
KINDS = ["spanetv2_nano_pure", "spanetv2_nano_hybrid"]


def save(path, state: StateDict):
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.mark.parametrize("later", [False, True], ids=["released", "later"])
def test_every_tensor_comes_back(build, kind, later, tmp_path):
    arguments = {"merge": "concatenated", "scaled_gate": True} if later else {}
    model = build(kind, **TINY, **arguments)
    model.init_weights()  # the order of the heads is noted there
    state = released(model, later)
    assert set(state) == names(kind, state, later)
    converted = spanets.convert_official(state)
    own = model.state_dict()
    assert converted.keys() == own.keys()
    assert all(torch.equal(converted[key], own[key]) for key in own)
    blank = timm.create_model(kind, **TINY, **arguments)
    report = load_weights(blank, save(tmp_path / "a.safetensors", state))
    assert report.released
    assert not report.skipped
    assert not report.fresh
    assert all(torch.equal(blank.state_dict()[key], own[key]) for key in own)


def names(kind: str, state: StateDict, later: bool) -> set[str]:
    """Names that the reference's list of the released ones has, at this model's depths."""
    from golden import STATE_SHAPES

    variant = kind.replace("nano", "s18") + ("@merged" if later and "pure" in kind else "")
    known = set(STATE_SHAPES[variant])
    if later and "hybrid" in kind:  # the reference has no list of these: take the mixer's
        merged = {k for k in STATE_SHAPES["spanetv2_s18_pure@merged"] if k[:8] in STAGES_01}
        known = {k for k in known if k[:8] not in STAGES_01} | merged
    return {name for name in known if name in state or name.split(".")[2] in ("0",)} & set(state)


STAGES_01 = ("stages.0", "stages.1")


def test_wrong_pairing_is_refused(build, tmp_path):
    # Our own file keeps the order as a tensor, the released one in its names.
    interleaved = save(tmp_path / "i.safetensors", released(build(KINDS[0], **TINY)))
    later = released(build(KINDS[0], **TINY, merge="concatenated", scaled_gate=True), later=True)
    concatenated = save(tmp_path / "c.safetensors", later)
    with pytest.raises(WeightsError, match=r'heads are interleaved.*with merge="interleaved"'):
        load_weights(timm.create_model(KINDS[0], **TINY, merge="concatenated"), interleaved)
    with pytest.raises(WeightsError, match=r'heads are concatenated.*with merge="concatenated"'):
        load_weights(timm.create_model(KINDS[0], **TINY, scaled_gate=True), concatenated)
    with pytest.raises(WeightsError, match=r"filter\.alpha.*scaled_gate=True"):
        load_weights(timm.create_model(KINDS[0], **TINY, merge="concatenated"), concatenated)
    with pytest.raises(WeightsError, match=r"filter\.alpha.*scaled_gate=False"):
        load_weights(timm.create_model(KINDS[0], **TINY, scaled_gate=True), interleaved)
    load_weights(
        timm.create_model(KINDS[0], **TINY, merge="concatenated", scaled_gate=True), concatenated
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64])
def test_an_order_in_any_number_format(build, dtype):
    """Scripts convert all tensors of a state dict alike."""
    state = {k: v.to(dtype) for k, v in build(KINDS[0], **TINY).state_dict().items() if v.ndim == 0}
    model = timm.create_model(KINDS[0], **TINY)
    load_weights(model, model.state_dict() | state)
    key = next(iter(state))
    assert key.endswith("merge.interleaved") and model.state_dict()[key].dtype == torch.bool
    with pytest.raises(
        WeightsError, match=r"merge\.interleaved: the file's heads are concatenated"
    ):
        load_weights(model, model.state_dict() | {key: torch.zeros((), dtype=dtype)})
    with pytest.raises(WeightsError, match=r"merge\.interleaved has shape"):
        load_weights(model, model.state_dict() | {key: torch.ones(2, dtype=dtype)})


def test_an_order_that_is_none(build):
    model = timm.create_model(KINDS[0], **TINY)
    key = next(key for key in model.state_dict() if key.endswith("merge.interleaved"))
    with pytest.raises(WeightsError, match=r"holds torch.float32 in the file, torch.bool in the"):
        load_weights(model, model.state_dict() | {key: torch.tensor(0.5)})


def test_filters_of_another_image_size(build, tmp_path):
    path = save(tmp_path / "a.safetensors", released(build(KINDS[0], **TINY)))
    model = timm.create_model(KINDS[0], **TINY | {"img_size": 96})
    with pytest.raises(WeightsError, match=r"filter\.logits has shape.*img_size"):
        load_weights(model, path)


def test_dense_prediction_backbone(build, kind, tmp_path):
    """A detector's backbone: an output norm a stage, no head, prefixed."""
    model = build(kind, **TINY | {"num_classes": 0}, output_norm=True)
    model.init_weights()
    state = {f"backbone.{key}": value for key, value in released(model).items()}
    assert {f"backbone.norm{i}.weight" for i in range(4)} <= state.keys()
    assert not any(key.startswith("backbone.head") for key in state)
    path = save(tmp_path / "d.safetensors", state | {"bbox_head.fc.weight": torch.ones(2, 2)})
    blank = timm.create_model(kind, **TINY | {"num_classes": 0}, output_norm=True)
    load_weights(blank, path)
    own = model.state_dict()
    assert all(torch.equal(blank.state_dict()[key], own[key]) for key in own)
    features = timm.create_model(kind, features_only=True, **TINY, output_norm=True)
    load_weights(features, path)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps = features.eval()(x)
        expected = model.eval().forward_intermediates(x, intermediates_only=True)
    for ours, theirs in zip(maps, expected, strict=True):
        assert torch.equal(ours, theirs)
        assert ours.mean(1).abs().max() < 1 or ours.std() < 3  # normed


def test_through_timm(build, kind, tmp_path):
    """timm's own way to give a file, and `checkpoint_path`."""
    model = build(kind, **TINY)
    path = save(tmp_path / "a.safetensors", released(model))
    loaded = timm.create_model(
        kind, pretrained=True, pretrained_cfg_overlay={"file": str(path), "num_classes": 5}, **TINY
    )
    for key, value in model.named_parameters():
        assert torch.equal(loaded.get_parameter(key), value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages.0.0.token_mixer.filter_3": None}, "missing key stages.0.0.token_mixer.filter_3"),
        ({"stages.0.0.token_mixer.filter_5": (2, 16, 9)}, "filter_5, a mixer has 4 filters"),
        ({"stages.0.0.token_mixer.filter": (8, 16, 9)}, "one of them is too many"),
        ({"stages.0.0.token_mixer.filter_2": (2, 16, 8)}, "filter_2 has shape"),
        ({"stages.0.0.token_mixer.filter_1": ()}, "filter_1|filter_2 has shape"),
        ({"stages.0.0.token_mixer.ctx.bias": (8,)}, "unexpected key .*value.bias"),
        ({"stages.0.7.norm1.weight": (8,)}, "unexpected key stages.0.blocks.7"),
        ({"stages.9.0.norm1.weight": (8,)}, "unexpected key stages.9.0.norm1.weight"),
        ({"downsample_layers.4.conv.weight": (8,)}, "unexpected key downsample_layers.4"),
        ({"head.fc2.bias": None}, "missing key head.fc.fc2.bias"),
        ({"stages.1.1.norm2.weight": None}, "missing key stages.1.blocks.1.norm2.weight"),
        ({"stages.0.0.mlp.fc1.weight": (16, 8)}, "mlp.fc1.weight has shape"),
    ],
)
def test_wrong_files(build, tmp_path, change, message):
    state = released(build(KINDS[0], **TINY))
    for key, shape in change.items():
        if shape is None:
            del state[key]
        else:
            state[key] = torch.zeros(shape)
    path = save(tmp_path / "a.safetensors", state)
    with pytest.raises(WeightsError, match=message):
        load_weights(timm.create_model(KINDS[0], **TINY), path)
