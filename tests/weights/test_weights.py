"""Every form of file that weights come in, and every way for one to be wrong."""

import argparse
import os
import pickle
import random
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from golden import STATE_SHAPES
from released_names import BALANCES, RADII
from released_names import released_spanet as released
from safetensors.torch import save_file
from torch import Tensor, nn

import spanets
from spanets.spectral import low_frequency_mask
from spanets.weights import PUBLISHED, WeightsError, load_weights, read_checkpoint, read_state_dict
from spanets_runtime.errors import UserError

StateDict = dict[str, Tensor]

NAME = "spanet_nano"
# Some kilobytes, with every kind of part.
TINY = {"dims": (6, 7, 9, 12), "depths": (1, 2, 1, 1)}
CLASSES = 5


@pytest.fixture
def tiny(build) -> nn.Module:
    """The model whose weights the files hold."""
    return build(NAME, **TINY, num_classes=CLASSES).eval()


@pytest.fixture
def blank() -> nn.Module:
    """A model of the same form with other weights."""
    torch.manual_seed(1)
    return timm.create_model(NAME, **TINY, num_classes=CLASSES).eval()


def prefixed(prefix: str, state: StateDict) -> StateDict:
    return {prefix + key: value for key, value in state.items()}


def training_script(state: StateDict) -> dict[str, Any]:
    """What timm's training script of the time left in a .pth.tar."""
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    return {
        "epoch": 299,
        "arch": "spanet_small",
        "state_dict": state,
        "optimizer": optimizer.state_dict(),
        "version": 2,
        "args": argparse.Namespace(lr=1e-3, data_dir="/data", model_ema=False, mean=None),
        "amp_scaler": {"scale": 65536.0, "growth_factor": 2.0},
        "metric": np.float64(83.1),
    }


def lightning(state: StateDict) -> dict[str, Any]:
    """What our own training leaves in a .ckpt."""
    loops = {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 3}}}}
    return {"state_dict": prefixed("model.", state), "loops": loops, "global_step": 7}


def detector(state: StateDict) -> dict[str, Any]:
    """What mmdetection leaves: a backbone between other parts."""
    rest = {"neck.lateral_convs.0.conv.weight": torch.zeros(2), "bbox_head.fc.bias": torch.ones(3)}
    meta = {"mmdet_version": "2.28.1", "CLASSES": ("person", "bicycle"), "config": "model = …"}
    return {"meta": meta, "state_dict": OrderedDict(prefixed("backbone.", state) | rest)}


def write(path: Path, content: object, old: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    return path


def write_safetensors(path: Path, state: StateDict) -> Path:
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


def replace_in_zip(path: Path, old: bytes, new: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {entry: archive.read(entry) for entry in archive.infolist()}
    assert any(old in content for content in entries.values())
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries.items():
            archive.writestr(entry, content.replace(old, new))


def assert_same_weights(ours: nn.Module, theirs: nn.Module) -> None:
    a, b = ours.state_dict(), theirs.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def failure(model: nn.Module, path: Path, **options: Any) -> str:
    """What `load_weights` says of a file that does not fit; the model stays as it was."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_weights(model, path, **options)
    assert isinstance(caught.value, UserError)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    return message.removeprefix(f"{path}: ")


# ---- the released variants


@pytest.mark.parametrize("variant", [name for name in STATE_SHAPES if name.startswith("spanet_")])
def test_every_released_key_is_one_of_ours(variant):
    """Names and shapes of the authors' state dicts, converted, are those of our model."""
    state = {}
    for key, shape in STATE_SHAPES[variant].items():
        state[key] = torch.zeros(()).expand(shape)
        if key.endswith(".filter"):
            stage, gate = int(key.split(".")[1]) // 2, int(key.split(".")[5])
            state[key] = low_frequency_mask(*shape[1:], RADII[stage], BALANCES[gate])[None]
    own = timm.create_model(variant.lower(), device="meta").state_dict()
    converted = spanets.convert_official(state)
    assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in own.items()}


def test_conversion_is_exact_and_leaves_its_input_alone(tiny):
    state = released(tiny)
    before = {key: (id(value), value._version) for key, value in state.items()}
    converted = spanets.convert_official(state)
    own = tiny.state_dict()
    assert converted.keys() == own.keys()
    assert all(torch.equal(converted[key], own[key]) for key in own)
    assert {key: (id(value), value._version) for key, value in state.items()} == before


def test_our_own_names_stay(tiny):
    state = tiny.state_dict()
    converted = spanets.convert_official(state)
    assert converted == state
    assert converted is not state


# ---- every form of file

FORMS: dict[str, Callable[[Path, nn.Module], Path]] = {
    "spanet.pth": lambda path, m: write(path, released(m)),
    "spanet.pth.tar": lambda path, m: write(path, training_script(released(m))),
    "model.pth": lambda path, m: write(path, {"model": released(m), "epoch": 3}),
    "parallel.pth": lambda path, m: write(path, prefixed("module.", released(m))),
    "both.pth.tar": lambda path, m: write(path, training_script(prefixed("module.", released(m)))),
    "old.pth": lambda path, m: write(path, training_script(released(m)), old=True),
    "spanet.safetensors": lambda path, m: write_safetensors(path, released(m)),
    "no_suffix": lambda path, m: write_safetensors(path, released(m)),
    "wrong_suffix.safetensors": lambda path, m: write(path, released(m)),
    "without_masks.pth": lambda path, m: write(path, released(m, masks=False)),
    "ours.pth": lambda path, m: write(path, m.state_dict()),
    "ours.safetensors": lambda path, m: write_safetensors(path, m.state_dict()),
    "ours.ckpt": lambda path, m: write(path, lightning(m.state_dict())),
    "parallel.ckpt": lambda path, m: write(path, lightning(prefixed("module.", m.state_dict()))),
    "compiled.ckpt": lambda path, m: write(path, lightning(prefixed("_orig_mod.", m.state_dict()))),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_file(tiny, blank, tmp_path, form):
    path = FORMS[form](tmp_path / form, tiny)
    report = load_weights(blank, path)
    assert_same_weights(blank, tiny)
    assert report.loaded == len(tiny.state_dict())
    assert report.released == ("ours" not in form and "ckpt" not in form)
    assert not report.skipped
    assert not report.fresh
    names = "the released names" if report.released else "our names"
    assert str(report) == f"{path}: {report.loaded} tensors loaded ({names})"


@pytest.mark.parametrize("core", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_metric_of_either_numpy(tiny, blank, tmp_path, core):
    """NumPy 2 renamed the module that its numbers are pickled by; released files are older."""
    path = write(tmp_path / "spanet.pth.tar", training_script(released(tiny)))
    replace_in_zip(path, np.float64(0).__reduce__()[0].__module__.encode(), core)
    load_weights(blank, str(path))
    assert_same_weights(blank, tiny)
    assert read_checkpoint(path)["metric"] == 83.1


def test_half_precision_file(tiny, blank, tmp_path):
    state = {key: value.half() for key, value in released(tiny).items()}
    load_weights(blank, write(tmp_path / "half.pth", state))
    assert_same_weights(blank, tiny.half().float())


@pytest.mark.parametrize("masks", [True, False])
def test_detector_into_a_backbone_with_output_norms(build, tmp_path, masks):
    options = {**TINY, "features_only": True, "output_norm": True}
    source = build(NAME, **options).eval()
    path = write(tmp_path / "mask_rcnn.pth", detector(released(source.model, masks)))
    backbone = timm.create_model(NAME, **options).eval()
    report = load_weights(backbone, path)
    assert_same_weights(backbone, source)
    assert not report.skipped
    assert not report.fresh
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert all(map(torch.equal, backbone(x), source(x)))


def test_classifier_into_features(tiny, tmp_path):
    path = write(tmp_path / "spanet.pth", released(tiny))
    backbone = timm.create_model(NAME, **TINY, features_only=True).eval()
    report = load_weights(backbone, path)
    assert set(report.skipped) == {"norm.weight", "norm.bias", "head.fc.weight", "head.fc.bias"}
    assert "left out: head.fc.bias, head.fc.weight (the model has no head)" in str(report)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert all(map(torch.equal, backbone(x), tiny.forward_intermediates(x)[1]))


def test_classifier_into_some_features(tiny, tmp_path):
    """Stages that the features do not need are gone from the model, not from the file."""
    path = write_safetensors(tmp_path / "ours.safetensors", tiny.state_dict())
    backbone = timm.create_model(NAME, **TINY, features_only=True, out_indices=(0, 1)).eval()
    report = load_weights(backbone, path)
    parts = {key[:8] for key in report.skipped}
    assert parts == {"stages.2", "stages.3", "norm.wei", "norm.bia", "head.fc."}
    assert "more) (the model has no stages.2)" in str(report)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert all(map(torch.equal, backbone(x), tiny.forward_intermediates(x)[1]))


def test_classifier_into_features_with_output_norms(tiny, tmp_path):
    path = write(tmp_path / "spanet.pth", released(tiny))
    backbone = timm.create_model(NAME, **TINY, features_only=True, output_norm=True)
    report = load_weights(backbone, path)
    norms = {key for key in backbone.model.state_dict() if key.startswith("output_norms.")}
    assert set(report.fresh) == norms
    assert all(value.all() for key, value in backbone.state_dict().items() if "norms.0.weig" in key)
    assert torch.equal(backbone.model.stem.conv.weight, tiny.stem.conv.weight)


def test_classifier_into_a_headless_model(tiny, tmp_path):
    path = write(tmp_path / "spanet.pth", released(tiny))
    model = timm.create_model(NAME, **TINY, num_classes=0)
    assert set(load_weights(model, path).skipped) == {"head.fc.weight", "head.fc.bias"}


@pytest.mark.parametrize("learnt", ["gate", "channel"])
def test_released_weights_start_a_learnt_balance(tiny, tmp_path, learnt):
    path = write(tmp_path / "spanet.pth", released(tiny))
    model = timm.create_model(
        NAME, **TINY, num_classes=CLASSES, learn_balance=learnt, learn_ring=True
    ).eval()
    report = load_weights(model, path)
    assert {key.rsplit(".", 1)[1] for key in report.fresh} == {"balance_logit", "ring_logit"}
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        # Balances go through a logarithm and back in float32.
        torch.testing.assert_close(model(x), tiny(x), rtol=1e-5, atol=1e-5)


def test_other_classes(tiny, tmp_path):
    path = write(tmp_path / "spanet.pth", released(tiny))
    model = timm.create_model(NAME, **TINY, num_classes=3)
    message = failure(model, path)
    assert message == "head.fc.bias has shape (5,) in the file, (3,) in the model"
    own = model.head.fc.weight.clone()
    report = load_weights(model, path, reset_classifier=True)
    assert set(report.fresh) == {"head.fc.weight", "head.fc.bias"}
    assert torch.equal(model.head.fc.weight, own)
    assert torch.equal(model.norm.weight, tiny.norm.weight)
    assert report.loaded == len(tiny.state_dict()) - 2


def test_resetting_a_classifier_that_fits_loads_it(tiny, blank, tmp_path):
    report = load_weights(blank, write(tmp_path / "a.pth", released(tiny)), reset_classifier=True)
    assert not report.fresh
    assert_same_weights(blank, tiny)


def test_headless_file(tiny, blank, tmp_path):
    state = {k: v for k, v in tiny.state_dict().items() if not k.startswith("head.")}
    path = write(tmp_path / "headless.pth", state)
    assert failure(blank, path) == "missing key head.fc.bias (and 1 more)"
    assert set(load_weights(blank, path, reset_classifier=True).fresh) == {
        "head.fc.weight",
        "head.fc.bias",
    }


# ---- files that do not fit

BLOCK = "network.0.0.token_mixer."
OURS = "stages.0.blocks.0.token_mixer."


def test_missing_key(tiny, blank, tmp_path):
    for key, named in [
        ("patch_embed.proj.weight", "stem.conv.weight"),
        ("network.4.0.res_scale1.scale", "stages.2.blocks.0.res_scale1.scale"),
        ("network.3.proj.bias", "stages.2.downsample.conv.bias"),
        (f"{BLOCK}conv.1.weight", f"{OURS}conv_column.weight"),
        ("norm.bias", "norm.bias"),
    ]:
        state = released(tiny)
        del state[key]
        assert failure(blank, write(tmp_path / "a.pth", state)) == f"missing key {named}"


@pytest.mark.parametrize("part", ["pws.0.weight", "pws.2.bias"])
def test_missing_gate(tiny, blank, tmp_path, part):
    state = released(tiny)
    del state[BLOCK + part]
    message = failure(blank, write(tmp_path / "a.pth", state))
    assert message == f"missing key {BLOCK}{part}, one of 3 gates"


@pytest.mark.parametrize(
    "key",
    [
        "network.0.0.norm3.weight",
        "network.0.7.norm1.weight",
        "network.8.0.norm1.weight",
        "network.8.0.token_mixer.sps.0.filter",
        "network.1.norm.weight",
        f"{BLOCK}pws.3.weight",
        f"{BLOCK}pws.0.scale",
        f"{BLOCK}sps.3.filter",
        f"{BLOCK}context.scale",
        "classifier.weight",
        "head.fc1.weight",
        "bias",
        "",
    ],
)
def test_unexpected_key(tiny, blank, tmp_path, key):
    state = released(tiny)
    state[key] = torch.ones(1, 4, 4)
    message = failure(blank, write(tmp_path / "a.pth", state))
    ours = key.replace("network.0.", "stages.0.blocks.").replace("head.", "head.fc.")
    assert message.startswith((f"unexpected key {key}", f"unexpected key {ours}"))


def test_unexpected_key_of_ours(tiny, blank, tmp_path):
    state = {**tiny.state_dict(), "stages.0.blocks.9.norm1.weight": torch.ones(6)}
    message = failure(blank, write_safetensors(tmp_path / "a.safetensors", state))
    assert message.startswith("unexpected key stages.0.blocks.9.norm1.weight, the model has no")


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        (f"{BLOCK}pws.0.weight", (6, 3, 1, 1)),
        (f"{BLOCK}pws.1.weight", (6, 2)),
        (f"{BLOCK}pws.2.weight", (5, 2, 1, 1)),
        (f"{BLOCK}pws.1.bias", (7,)),
        (f"{BLOCK}pws.1.bias", ()),
        (f"{BLOCK}proj_in.weight", (6, 6)),
        ("network.0.0.norm1.weight", (7,)),
        ("patch_embed.proj.weight", (6, 1, 7, 7)),
        ("norm.weight", (12, 1)),
    ],
)
def test_wrong_shape(tiny, blank, tmp_path, key, shape):
    state = released(tiny)
    state[key] = torch.ones(shape)
    message = failure(blank, write(tmp_path / "a.pth", state))
    ours = key.replace(BLOCK, OURS).replace("network.0.0.", "stages.0.blocks.0.")
    ours = ours.replace("patch_embed.proj.", "stem.conv.")
    assert message.startswith((f"{key} has shape {shape}", f"{ours} has shape {shape}"))


@pytest.mark.parametrize("all_gates", [True, False])
def test_gates_of_no_size(tiny, blank, tmp_path, all_gates):
    state = released(tiny)
    for i in range(3 if all_gates else 1):
        state |= {f"{BLOCK}pws.{i}.{kind}": torch.ones(()) for kind in ("weight", "bias")}
    assert f"{BLOCK}pws.0.weight" in failure(blank, write(tmp_path / "a.pth", state))


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.complex64])
def test_no_floating_point(tiny, blank, tmp_path, kind):
    state = {**tiny.state_dict(), "norm.weight": torch.ones(12, dtype=kind)}
    message = failure(blank, write(tmp_path / "a.pth", state))
    assert message == f"norm.weight holds {kind} in the file, torch.float32 in the model"


@pytest.mark.filterwarnings("ignore:.*deprecated")
@pytest.mark.parametrize("kind", ["sparse", "meta", "quantized"])
def test_no_plain_tensor(tiny, blank, tmp_path, kind):
    make = {
        "sparse": lambda: torch.eye(12).to_sparse(),
        "meta": lambda: torch.ones(12, device="meta"),
        "quantized": lambda: torch.quantize_per_tensor(torch.ones(12), 0.1, 0, torch.qint8),
    }
    path = write(tmp_path / "a.pth", {**tiny.state_dict(), "norm.weight": make[kind]()})
    assert failure(blank, path) == "norm.weight is not a plain tensor"


@pytest.mark.parametrize(
    ("stage", "radius", "balance", "ring"),
    [(0, 1, 0.8, 1 / 3), (0, 2, 0.7, 1 / 3), (0, 2, 0.8, None), (3, 2, 0.8, 1 / 3)],
    ids=["radius", "balance", "ring", "radius of the last stage"],
)
def test_another_mask(tiny, blank, tmp_path, stage, radius, balance, ring):
    state = released(tiny)
    key = f"network.{2 * stage}.0.token_mixer.sps.1.filter"
    side = state[key].shape[1]
    state[key] = low_frequency_mask(side, side, radius, balance, ring)[None]
    message = failure(blank, write(tmp_path / "a.pth", state))
    assert message.startswith(f"{key} is off by")
    assert f"mask of radius {RADII[stage]}, balance 0.8 and ring 0.3333" in message


@pytest.mark.parametrize(
    "mask", [torch.ones(6, 6), torch.ones(2, 6, 6), torch.ones(1, 0, 6), torch.ones(1, 6, 6).int()]
)
def test_no_mask(tiny, blank, tmp_path, mask):
    state = {**released(tiny), f"{BLOCK}sps.1.filter": mask}
    message = failure(blank, write(tmp_path / "a.pth", state))
    assert message.startswith(f"{BLOCK}sps.1.filter is {mask.dtype} {tuple(mask.shape)}, a mask is")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_mask_without_numbers(tiny, blank, tmp_path, value):
    state = released(tiny)
    state[f"{BLOCK}sps.1.filter"][0, 3, 3] = value
    assert f"{BLOCK}sps.1.filter is off by" in failure(blank, write(tmp_path / "a.pth", state))


def test_masks_follow_the_model(tiny, tmp_path):
    """Weights trained with other radii, balances or ring load into a model that has them."""
    other = {"radii": (3, 1, 1, 1), "balances": (0.6, 0.8, 0.9), "ring": 0.5}
    state = released(tiny)
    for key in [key for key in state if key.endswith(".filter")]:
        stage, gate, side = int(key.split(".")[1]) // 2, int(key.split(".")[5]), state[key].shape[1]
        mask = low_frequency_mask(side, side, other["radii"][stage], other["balances"][gate], 0.5)
        state[key] = mask[None]
    path = write(tmp_path / "other.pth", state)
    load_weights(timm.create_model(NAME, **TINY, num_classes=CLASSES, **other), path)
    for key, value in other.items():
        less = {k: v for k, v in other.items() if k != key}
        model = timm.create_model(NAME, **TINY, num_classes=CLASSES, **less)
        assert ".filter is off by" in failure(model, path), (key, value)


def test_another_variant(tiny, tmp_path):
    path = write(tmp_path / "tiny.pth", released(tiny))
    deeper = timm.create_model(NAME, dims=TINY["dims"], num_classes=CLASSES)
    assert failure(deeper, path).startswith("missing key stages.0.blocks.1.")
    shallower = timm.create_model(NAME, **{**TINY, "depths": (1, 1, 1, 1)}, num_classes=CLASSES)
    message = failure(shallower, path)
    assert message.startswith("unexpected key stages.1.blocks.1.")
    assert "more), the model has no such tensor" in message
    wider = timm.create_model(NAME, **{**TINY, "dims": (9, 7, 9, 12)}, num_classes=CLASSES)
    assert "has shape" in failure(wider, path)


def test_detector_into_a_classifier(build, blank, tmp_path):
    source = build(NAME, **TINY, features_only=True, output_norm=True)
    path = write(tmp_path / "mask_rcnn.pth", detector(released(source.model, masks=False)))
    assert failure(blank, path) == "missing key head.fc.bias (and 3 more)"


def test_another_network(blank, tmp_path):
    state = timm.create_model("test_resnet").state_dict()
    message = failure(blank, write(tmp_path / "resnet.pth", state))
    assert message.startswith("unexpected key bn1.bias")


def test_model_without_values(tiny, tmp_path):
    path = write(tmp_path / "a.pth", released(tiny))
    with pytest.raises(ValueError, match="on the meta device"):
        load_weights(timm.create_model(NAME, **TINY, device="meta"), path)


# ---- files that are none


def test_no_file(blank, tmp_path):
    assert failure(blank, tmp_path / "none.pth") == "no such file"
    assert failure(blank, tmp_path) == "is a folder; name a file in it"
    (tmp_path / "empty.pth").touch()
    assert failure(blank, tmp_path / "empty.pth") == "the file is empty"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "a web page, not weights; the"),
        (b"\r\n  <html>Quota exceeded</html>", "a web page, not weights; the"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "a pointer of Git LFS"),
        (b"Weights are available upon request.\n" * 20, "neither a PyTorch nor a safetensors file"),
        (b"x", "neither a PyTorch nor a safetensors file"),
        (b"\x00" * 4096, "neither a PyTorch nor a safetensors file"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 99, "neither a PyTorch nor a safetensors file"),
        (b"PK\x05\x06" + b"\x00" * 18, "a truncated or damaged PyTorch file"),  # an empty archive
        (b"\xff" * 8 + b"{}", "a truncated or damaged safetensors file"),
        (b"\x02" + b"\x00" * 7 + b"{}", "holds no named tensors, so it is not a checkpoint"),
    ],
    ids=[
        "page",
        "page after space",
        "lfs",
        "text",
        "byte",
        "zeros",
        "png",
        "zip",
        "length",
        "none",
    ],
)
def test_foreign_file(blank, tmp_path, content, message):
    path = tmp_path / "spanet.pth"
    path.write_bytes(content)
    assert failure(blank, path).startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(3), "holds a Tensor, not a state dict"),
        ([torch.ones(3)], "holds a list, not a state dict"),
        (None, "holds a NoneType, not a state dict"),
        ({}, "holds no named tensors, so it is not a checkpoint"),
        ({"epoch": 3, "state_dict": {}}, "holds no named tensors, so it is not a checkpoint"),
        ({0: torch.ones(3)}, "holds no named tensors, so it is not a checkpoint"),
        ({"weight": [1.0, 2.0]}, "holds no named tensors, so it is not a checkpoint"),
        ({"state_dict": torch.ones(3)}, "unexpected key state_dict, the model has no such tensor"),
    ],
    ids=str,
)
def test_no_state_dict(blank, tmp_path, content, message):
    assert failure(blank, write(tmp_path / "a.pth", content)) == message


def test_file_that_holds_itself(blank, tmp_path):
    content: dict[str, Any] = {}
    content["model"] = content["state_dict"] = content
    path = write(tmp_path / "a.pth", content)
    assert failure(blank, path) == "holds no named tensors, so it is not a checkpoint"


DAMAGED = {
    "zip": lambda path, m: write(path, training_script(released(m))),
    "old": lambda path, m: write(path, training_script(released(m)), old=True),
    "safetensors": lambda path, m: write_safetensors(path, released(m)),
}


@pytest.mark.parametrize("form", DAMAGED)
def test_truncated_file(tiny, blank, tmp_path, form):
    path = DAMAGED[form](tmp_path / "spanet.pth", tiny)
    content = path.read_bytes()
    lengths = [1, 2, 7, 8, 9, 30, 64, 1000, len(content) // 2, len(content) - 1]
    for length in lengths:
        path.write_bytes(content[:length])
        message = failure(blank, path)
        if length > 9:
            kind = "safetensors" if form == "safetensors" else "PyTorch"
            assert message == f"a truncated or damaged {kind} file", length
    path.write_bytes(content)
    load_weights(blank, path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", DAMAGED)
def test_damaged_file(tiny, blank, tmp_path, form):
    """Bytes changed, cut or inserted: refused in one line, or loaded; nothing else is seen."""
    path = DAMAGED[form](tmp_path / "spanet.pth", tiny)
    content = path.read_bytes()
    chance = random.Random(form)
    outcomes = set()
    for _ in range(60):
        damaged = bytearray(content)
        for _ in range(chance.choice([1, 1, 4, 40])):
            # Half of the changes near the ends, where headers are.
            near = chance.choice([400, len(damaged)])
            i = chance.choice([chance.randrange(near), -1 - chance.randrange(near)])
            change = chance.choice(["set", "set", "cut", "insert"])
            if change == "set":
                damaged[i] = chance.randrange(256)
            elif change == "cut":
                del damaged[i : i + chance.randrange(1, 9)]
            else:
                damaged[i:i] = chance.randbytes(chance.randrange(1, 9))
        path.write_bytes(damaged)
        try:
            load_weights(blank, path)
            outcomes.add("loaded")
        except WeightsError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
    assert outcomes >= {"refused"}


# ---- files that would run code


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.makedirs, (str(self.path),)


ATTACKS: dict[str, Callable[[Path, Payload, StateDict], object]] = {
    "beside": lambda path, evil, state: write(path, {"state_dict": state, "args": evil}),
    "within": lambda path, evil, state: write(path, {**state, "head.bias": evil}),
    "old": lambda path, evil, state: write(path, {"state_dict": state, "args": evil}, old=True),
    "alone": lambda path, evil, state: write(path, evil),
    "pickle": lambda path, evil, state: path.write_bytes(pickle.dumps(evil)),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_code_in_a_file_is_not_run(tiny, blank, tmp_path, attack):
    proof = tmp_path / "proof"
    path = tmp_path / "spanet.pth"
    ATTACKS[attack](path, Payload(proof), released(tiny))
    message = failure(blank, path)
    assert not proof.exists()
    if attack != "pickle":  # of a bare pickle not even the names are read
        assert message.startswith("holds Python objects (os.makedirs) that could run code")
    for read in (read_checkpoint, read_state_dict):
        with pytest.raises(WeightsError):
            read(path)
    assert not proof.exists()
    # The payload is live: a loader that trusts the file runs it.
    if attack == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert proof.exists()


def test_whole_model_is_refused(tiny, blank, tmp_path):
    message = failure(blank, write(tmp_path / "model.pth", tiny))
    assert message.startswith("holds Python objects (spanets.backbones.spanet.SPANet) that could")


# ---- weights that timm is asked for


@pytest.mark.parametrize(
    "name", [n for n in spanets.list_models() if n not in {r.model for r in PUBLISHED}]
)
def test_pretrained_without_published_weights(name):
    with pytest.raises(RuntimeError) as caught:
        timm.create_model(name, pretrained=True)
    message = str(caught.value)
    near = "spanetv2_s18_pure" if name.startswith("spanetv2") else "spanet_small"
    assert (
        f"no weights of {name} are published; the nearest model that has some is {near};" in message
    )
    assert f'timm.create_model("{name}"); spanets.load_weights(model, "FILE")' in message


@pytest.mark.parametrize("overlay", [{}, {"num_classes": 5}, {"file": ""}])
def test_pretrained_without_a_source(overlay):
    for key in ("pretrained_cfg", "pretrained_cfg_overlay"):
        with pytest.raises(RuntimeError, match="load_weights"):
            timm.create_model(NAME, pretrained=True, **{key: overlay})


@pytest.mark.parametrize("form", ["spanet.pth", "spanet.safetensors", "ours.pth", "parallel.pth"])
def test_pretrained_from_a_file(tiny, tmp_path, form):
    """timm's own way to name a file; the model's hook renames what it holds."""
    overlay = {"file": str(FORMS[form](tmp_path / form, tiny)), "num_classes": CLASSES}
    options = {**TINY, "pretrained": True, "pretrained_cfg_overlay": overlay}
    model = timm.create_model(NAME, **options, num_classes=CLASSES).eval()
    assert_same_weights(model, tiny)
    other = timm.create_model(NAME, **options, num_classes=3)
    assert other.head.fc.weight.shape == (3, 12)
    assert torch.equal(other.norm.weight, tiny.norm.weight)
    features = timm.create_model(NAME, **options, features_only=True).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert all(map(torch.equal, features(x), tiny.forward_intermediates(x)[1]))


def test_pretrained_from_a_configuration(tiny, tmp_path):
    path = FORMS["spanet.pth"](tmp_path / "spanet.pth", tiny)
    config = timm.get_pretrained_cfg(NAME)
    config.file, config.num_classes = str(path), CLASSES
    model = timm.create_model(
        NAME, pretrained=True, pretrained_cfg=config, **TINY, num_classes=CLASSES
    )
    assert_same_weights(model, tiny)


def test_pretrained_from_a_file_with_another_mask(tiny, tmp_path):
    path = FORMS["spanet.pth"](tmp_path / "spanet.pth", tiny)
    overlay = {"file": str(path), "num_classes": CLASSES}
    with pytest.raises(WeightsError, match="another variant"):
        timm.create_model(
            NAME, **TINY, num_classes=CLASSES, ring="none", pretrained=True,
            pretrained_cfg_overlay=overlay,
        )  # fmt: skip
