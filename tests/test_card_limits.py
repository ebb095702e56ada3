"""Checkpoints whose info asks for too much, for odd things, or for something from elsewhere."""

import copy
import os
import resource
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opened import restore_model

from spanets.backbones.factory import create_model
from spanets.backbones.limits import ModelTooLargeError, limited_model
from spanets.checkpoint import INFO_KEY, ModelInfo, load_checkpoint
from spanets.detection import build_detector
from spanets.segmentation import build_segmenter
from spanets.weights import WeightsError
from spanets_runtime.errors import UsageError, UserError

SECONDS = 10  # of a processor; the slowest takes two
ROOM = 1500 * 2**20


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Whoever reaches for the network fails the test."""

    def refuse(*arguments: object, **more: object) -> None:
        pytest.fail(f"reaches for the network: {arguments}")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


def info(**changes: Any) -> dict[str, Any]:
    whole = ModelInfo("test_vit", {}, ["cat", "dog"], {}, {}, "0")
    return {**whole.to_dict(), **changes}


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=2).state_dict()


@pytest.fixture
def save(weights, tmp_path):
    """Returns `save(**changes of the metadata)`, which writes a checkpoint."""

    def write(state: dict[str, torch.Tensor] = weights, **changes: Any) -> Path:
        path = tmp_path / "a.ckpt"
        named = {f"model.{key}": value for key, value in state.items()}
        torch.save({"state_dict": named, INFO_KEY: info(**changes)}, path)
        return path

    return write


def refusal(path: Path) -> str:
    """What is said of a checkpoint, soon and in little memory."""
    start = time.process_time()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, hard))
    try:
        with pytest.raises(WeightsError) as caught:
            restore_model(path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert time.process_time() - start < SECONDS
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message) < 600
    return message.removeprefix(f"{path}: ")


def test_a_checkpoint_that_fits(save, weights):
    model, found = restore_model(save(model_args={"drop_path_rate": 0.1, "img_size": 160}))
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert found.classes == ["cat", "dog"]


# ---- size


@pytest.mark.parametrize(
    "arguments",
    [
        {"depth": 10**7},
        {"depth": 16_000},
        {"embed_dim": 10**9},
        {"embed_dim": 16_384},
        {"img_size": 10**8},
        {"img_size": [10**12, 10**12]},
        {"mlp_ratio": 1e30},
        {"mlp_ratio": float("inf")},
        {"drop_path_rate": float("nan")},
        {"num_heads": -(10**30)},
        {"patch_size": 10**6},
        {"reg_tokens": 10**9},
        {"in_chans": 16_000},
    ],
    ids=str,
)
def test_models_that_are_too_large(arguments, save):
    refusal(save(model_args=arguments))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("spanet_nano", {"depths": [10**7, 1, 1, 1]}),
        pytest.param("spanet_nano", {"depths": [16_000] * 4}, marks=pytest.mark.slow),
        ("spanet_nano", {"dims": [16_000] * 4}),
        ("spanet_nano", {"depths": [1] * 5000, "dims": [8] * 5000, "radii": [1] * 5000}),
        ("spanetv2_s18_pure", {"img_size": 16_000}),
        ("resnet18", {"layers": [16_000] * 4}),
        ("resnet18", {"channels": [16_000] * 4}),
        ("swin_tiny_patch4_window7_224", {"window_size": 181}),
        ("swin_tiny_patch4_window7_224", {"img_size": 16_000}),
        ("convnext_atto", {"depths": [16_000] * 4}),
        ("vit_giant_patch14_224", {}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_other_models_that_are_too_large(name, arguments, save):
    refusal(save(model=name, model_args=arguments))


@pytest.mark.slow
def test_one_tensor_under_many_names(weights, tmp_path):
    """A file of a megabyte for a network of gigabytes whose blocks all have the same tensors."""
    with torch.device("meta"):
        large = timm.create_model("test_vit", num_classes=2, depth=300, embed_dim=1536)
    shared: dict[Any, torch.Tensor] = {}
    state = {
        f"model.{key}": shared.setdefault(value.shape, torch.zeros(()).expand(value.shape))
        for key, value in large.state_dict().items()
    }
    path = tmp_path / "a.ckpt"
    arguments = {"depth": 300, "embed_dim": 1536}
    torch.save({"state_dict": state, INFO_KEY: info(model_args=arguments)}, path)
    assert path.stat().st_size < 2**20
    refusal(path)


def test_more_classes_than_the_classifier_has(save):
    message = refusal(save(classes=[f"{i}" for i in range(50_000)]))
    assert "of another shape, such as head.bias" in message
    assert refusal(save(classes=["a"] * 10**5)).startswith(
        "damaged, its metadata holds more values"
    )


def test_the_limit_is_for_one_thread(weights):
    """Other threads build what they like meanwhile, and nothing is left behind."""
    import threading

    made: list[object] = []
    with limited_model({}):
        thread = threading.Thread(
            target=lambda: made.append(
                torch.nn.ModuleList(torch.nn.Identity() for _ in range(9000))
            )
        )
        thread.start()
        thread.join()
        with pytest.raises(ModelTooLargeError):
            torch.nn.ModuleList(torch.nn.Identity() for _ in range(9000))
    assert len(made) == 1
    torch.nn.ModuleList(torch.nn.Identity() for _ in range(9000))


@pytest.mark.parametrize(
    ("task", "head"),
    [
        ("detection", {}),
        ("detection", {"kind": "mask_rcnn", "frozen_stages": 0, "settings": {"channels": 10**9}}),
        ("detection", {"kind": "mask_rcnn", "frozen_stages": 0, "settings": {"features": 16_384}}),
        ("detection", {"kind": "mask_rcnn", "frozen_stages": 10**9, "settings": {}}),
        ("detection", {"kind": "mask_rcnn", "frozen_stages": "x", "settings": {}}),
        ("detection", {"kind": ["mask_rcnn"], "frozen_stages": 0, "settings": {}}),
        ("detection", {"kind": "mask_rcnn", "frozen_stages": 0, "settings": {"norm_groups": 0.5}}),
        ("detection", {"kind": "mask_rcnn", "frozen_stages": 0, "settings": []}),
        ("detection", {"kind": "os.system", "frozen_stages": 0, "settings": {}}),
        ("segmentation", {}),
        ("segmentation", {"kind": "upernet", "frozen_stages": 0, "args": {"channels": 10**9}}),
        ("segmentation", {"kind": "upernet", "frozen_stages": 0, "args": {"pools": [16_000] * 99}}),
        ("segmentation", {"kind": "upernet", "frozen_stages": 0, "args": {"channels": "x"}}),
        ("segmentation", {"kind": "upernet", "frozen_stages": 0, "args": {"channels": -3}}),
        ("segmentation", {"kind": "upernet", "frozen_stages": 0, "args": [3]}),
        ("segmentation", {"kind": "upernet", "frozen_stages": None, "args": {}}),
        ("segmentation", {"kind": {"upernet": 1}, "frozen_stages": 0, "args": {}}),
        ("segmentation", {"kind": "semantic_fpn", "frozen_stages": 0, "args": {"dropout": 9}}),
        ("weather", {}),
    ],
    ids=str,
)
def test_heads_that_cannot_be(task, head, save):
    refusal(save(model="test_resnet", task=task, head=head))


@pytest.mark.parametrize(
    ("task", "head"),
    [
        (
            "detection",
            {
                "kind": "mask_rcnn",
                "frozen_stages": 1,
                "settings": {"channels": 8, "features": 16, "regions": 8, "proposals": 8},
            },
        ),
        (
            "detection",
            {
                "kind": "retinanet",
                "frozen_stages": 0,
                "settings": {"channels": 16, "norm_groups": 4},
            },
        ),
        ("segmentation", {"kind": "upernet", "frozen_stages": 0, "args": {"channels": 8}}),
        ("segmentation", {"kind": "semantic_fpn", "frozen_stages": 2, "args": {"channels": 8}}),
    ],
    ids=["mask_rcnn", "retinanet", "upernet", "semantic_fpn"],
)
@pytest.mark.parametrize("name", ["spanet_nano", "test_resnet"])
def test_detectors_and_segmenters_that_fit(task, head, name, save):
    torch.manual_seed(0)
    build = build_detector if task == "detection" else build_segmenter
    state = build(name, {}, 2, head).state_dict()
    model, _ = restore_model(save(state, model=name, task=task, head=head))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


# ---- odd values


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def doubled(depth: int) -> Any:
    """Few lists, each of them twice in the next: 2^depth ways through them."""
    value: Any = [1]
    for _ in range(depth):
        value = [value, value]
    return value


@pytest.mark.parametrize("key", ["model_args", "preprocessing", "recipe", "head"])
@pytest.mark.parametrize(
    "value",
    [
        nested(100),
        doubled(30),
        torch.ones(3),
        b"bytes",
        {3: 4},
        {"a", "b"},
        10**30,
        "x" * 10**6,
        3 + 4j,
        torch.float16,
        [None] * 200_000,
    ],
    ids=[
        "deep",
        "doubled",
        "tensor",
        "bytes",
        "key",
        "set",
        "large",
        "text",
        "complex",
        "dtype",
        "n",
    ],
)
def test_a_card_holds_plain_values_alone(key, value, save):
    message = refusal(save(**{key: {"a": value}}))
    assert message.startswith("damaged, its metadata holds "), message


@pytest.mark.parametrize(
    ("task", "preprocessing"),
    [
        ("classification", {"input_size": [3, 10**6, 10**6]}),
        ("classification", {"input_size": []}),
        ("classification", {"input_size": 224}),
        ("classification", {"input_size": [3, "x", "x"]}),
        ("classification", {"crop_pct": 0}),
        ("classification", {"crop_pct": float("nan")}),
        ("classification", {"mean": "abc"}),
        ("classification", {"std": [0, 0, 0]}),
        ("classification", {"interpolation": "/etc/passwd"}),
        ("classification", {"root": "/etc"}),
        ("detection", {"short_side": 10**9, "long_side": 10**9}),
        ("detection", {"short_side": -3}),
        ("segmentation", {"resize": [10**9, 10**9]}),
        ("segmentation", {"slide": [0, 0]}),
        ("segmentation", {"test": "never"}),
    ],
    ids=str,
)
def test_preprocessing_that_no_recipe_has(task, preprocessing, save):
    with pytest.raises(WeightsError, match=r"damaged preprocessing"):
        load_checkpoint(save(task=task, preprocessing=preprocessing))


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
_KEYS = ["format", "model", "model_args", "classes", "preprocessing", "recipe", "version", "task"]


@settings(max_examples=60, deadline=None)
@given(changes=st.dictionaries(st.sampled_from([*_KEYS, "head"]), _VALUES, max_size=4))
def test_any_card_is_used_or_refused(weights, tmp_path_factory, changes):
    path = tmp_path_factory.mktemp("any") / "a.ckpt"
    named = {f"model.{key}": value for key, value in weights.items()}
    torch.save({"state_dict": named, INFO_KEY: info(**changes)}, path)
    try:
        restore_model(path)
    except UserError as error:
        assert "\n" not in str(error)


# ---- nothing from elsewhere

ELSEWHERE = [
    {"pretrained": True},
    {"pretrained": "yes"},
    {"pretrained_cfg": "orig_in1k"},
    {"pretrained_cfg": {"url": "http://127.0.0.1:9/a.pth"}},
    {"pretrained_cfg": {"hf_hub_id": "owner/name"}},
    {"pretrained_cfg": {"file": "FILE"}},
    {"pretrained_cfg_overlay": {"url": "http://127.0.0.1:9/a.pth"}},
    {"pretrained_cfg_overlay": {"file": "FILE"}},
    {"pretrained_strict": False},
    {"pretrained_filter_fn": "os.system"},
    {"pretrained_model_args": {"in_chans": 1}},
    {"checkpoint_path": "FILE"},
    {"checkpoint_path": "http://127.0.0.1:9/a.pth"},
    {"cache_dir": "FOLDER"},
    {"model_name": "hf-hub:owner/name"},
    {"url": "http://127.0.0.1:9/a.pth"},
    {"hf_hub_id": "owner/name"},
    {"features_only": True},
    {"features_only": True, "feature_cls": "os.system"},
    {"feature_cfg": {"feature_cls": "fx"}},
    {"model_cfg": "hf-hub:owner/name"},
    {"kwargs_filter": ["pretrained"]},
    {"pruned": True},
    {"act_layer": "os.system"},
    {"norm_layer": "http://127.0.0.1:9/a.pth"},
    {"block_fn": "os.system"},
    {"weight_init": "http://127.0.0.1:9/a.pth"},
]

NAMES = [
    "hf-hub:owner/name",
    "hf_hub:owner/name",
    "local-dir:FOLDER",
    "http://127.0.0.1:9/a.pth",
    "owner/name",
    "/etc/passwd",
    "os:system",
    "test_vit.r160_in1k:x",
    "",
    "..",
]


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A file and a folder that must not be opened."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"x")
    opened: list[object] = []
    real = os.open

    def watch(path: Any, *arguments: Any, **more: Any) -> int:
        opened.append(path)
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", watch)
    yield folder
    assert not [path for path in opened if str(folder) in str(path)]
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]


def placed(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: placed(part, folder) for key, part in value.items()}
    if isinstance(value, str):
        return value.replace("FILE", str(folder / "model.safetensors")).replace(
            "FOLDER", str(folder)
        )
    return value


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation"])
@pytest.mark.parametrize("arguments", ELSEWHERE, ids=str)
def test_no_argument_fetches_or_reads(arguments, task, save, trap):
    """Refused, or the model is built of the file's own weights."""
    heads: dict[str, Any] = {
        "classification": {},
        "detection": {"kind": "retinanet", "frozen_stages": 0, "settings": {"channels": 8}},
        "segmentation": {"kind": "upernet", "frozen_stages": 0, "args": {"channels": 8}},
    }
    name = "test_vit" if task == "classification" else "test_resnet"
    path = save(model=name, model_args=placed(arguments, trap), task=task, head=heads[task])
    assert refusal(path)


@pytest.mark.parametrize("name", NAMES)
def test_no_name_fetches_or_reads(name, save, trap):
    assert refusal(save(model=placed(name, trap))).startswith("unknown model ")


@pytest.mark.parametrize("name", ["test_vit", "test_vit.r160_in1k", "resnet18", "spanet_nano"])
def test_a_model_by_name_fetches_nothing(name):
    create_model(name, {})
    for arguments in copy.deepcopy(ELSEWHERE[:15]):
        with pytest.raises(UsageError):
            create_model(name, arguments)
