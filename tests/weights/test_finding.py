"""Weights as other trainers leave them: found by the model's own names, the rest told."""

import argparse
import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from spanets.backbones.dense import DenseBackbone
from spanets.weights import WeightsError, load_weights

StateDict = dict[str, Tensor]

# A hundred kilobytes.
NAME, CLASSES = "test_resnet", 5


@pytest.fixture(scope="module")
def source() -> nn.Module:
    """The model whose weights the files hold."""
    torch.manual_seed(0)
    model = timm.create_model(NAME, num_classes=CLASSES)
    for name, value in model.named_buffers():
        if name.endswith(("mean", "var")):
            value.uniform_(0.5, 1)
    return model.eval()


@pytest.fixture
def blank() -> nn.Module:
    torch.manual_seed(1)
    return timm.create_model(NAME, num_classes=CLASSES).eval()


def prefixed(prefix: str, state: StateDict) -> StateDict:
    return {prefix + key: value for key, value in state.items()}


def moved(state: StateDict) -> StateDict:
    """Other weights, as an average of them is."""
    return {k: v + 1 if v.is_floating_point() else v for k, v in state.items()}


def holds(model: nn.Module, state: StateDict) -> bool:
    return all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def refusal(model: nn.Module, path: Path, **options: Any) -> str:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_weights(model, path, **options)
    assert holds(model, before)
    return str(caught.value).removeprefix(f"{path}: ")


# ---- wrappers and prefixes

PREFIXES = ("module.", "model.", "_orig_mod.", "net.", "timm_model.", "encoder.0.", "a.b.c.")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_prefix_that_all_keys_share(source, blank, tmp_path, prefix):
    report = load_weights(blank, save(tmp_path / "a.pth", prefixed(prefix, source.state_dict())))
    assert holds(blank, source.state_dict())
    assert report.notes() == []


@settings(max_examples=15, deadline=None)
@given(
    words=st.lists(st.text("abz_019-éß ", min_size=1, max_size=9), max_size=5),
    places=st.lists(st.text("abmoz_", min_size=1, max_size=9), max_size=3),
    others=st.sets(st.text("abz_.", max_size=9).map(lambda text: f"other{text}"), max_size=5),
)
def test_any_place_and_prefix(source, tmp_path_factory, words, places, others):
    """Whatever the words are, the weights are found, and each other tensor is told."""
    prefix = "".join(f"{word}." for word in words)
    state = prefixed(prefix, source.state_dict())
    if prefix:  # else they would be unexpected keys of the model itself
        state |= dict.fromkeys(sorted(others), torch.ones(2))
    content: Any = state
    for place in places:
        content = {place: content, "epoch": 3, "optimizer": {"state": {0: {"exp": torch.ones(3)}}}}
    path = save(tmp_path_factory.mktemp("any") / "a.pth", content)
    model = timm.create_model(NAME, num_classes=CLASSES)
    report = load_weights(model, path)
    assert holds(model, source.state_dict())
    assert set(report.outside) == (others if prefix else set())
    assert not (report.skipped or report.fresh)


def test_what_a_prefix_leaves_out_is_told(source, blank, tmp_path):
    state = prefixed("model.", source.state_dict()) | {"criterion.weight": torch.ones(5)}
    path = save(tmp_path / "a.ckpt", {"state_dict": state, "hyper_parameters": {"lr": 1e-3}})
    report = load_weights(blank, path)
    count = len(source.state_dict())
    assert str(report).splitlines() == [
        f"{path}: {count} tensors loaded (timm's names)",
        "1 left out: criterion.weight (not under 'model.')",
    ]


def test_a_prefix_of_a_few_keys_is_none(source, blank, tmp_path):
    """A part of another network that has some of the names by chance."""
    state = {f"layer{i}.weight": torch.ones(2) for i in range(99)} | {
        "block.fc.weight": source.fc.weight,
        "block.bn1.bias": source.bn1.bias,
    }
    message = refusal(blank, save(tmp_path / "a.pth", state))
    assert message.startswith("unexpected key block.bn1.bias")


def test_keys_beside_the_model_stay_unexpected(source, blank, tmp_path):
    """Without a prefix nothing tells a foreign tensor from one that the model should have."""
    state = {**source.state_dict(), "criterion.weight": torch.ones(5)}
    message = refusal(blank, save(tmp_path / "a.pth", state))
    assert message == "unexpected key criterion.weight, the model has no such tensor"


def test_names_are_shown_without_control_characters(source, blank, tmp_path):
    state = {**source.state_dict(), "\x1b[31m" + "x" * 10_000: torch.ones(5)}
    message = refusal(blank, save(tmp_path / "a.pth", state))
    assert message.startswith("unexpected key \\x1b[31mxxx")
    assert len(message) < 300


# ---- averages


def swa(model: nn.Module) -> StateDict:
    average = torch.optim.swa_utils.AveragedModel(model)
    return average.state_dict()


AVERAGES = {
    "timm": lambda raw, avg: ({"state_dict": raw, "state_dict_ema": avg, "epoch": 9}, False),
    "torchvision": lambda raw, avg: ({"model": raw, "model_ema": prefixed("module.", avg)}, False),
    "first": lambda raw, avg: ({"ema": avg, "net": raw}, False),
    "basicsr": lambda raw, avg: ({"params_ema": avg, "params": raw}, False),
    "flat": lambda raw, avg: (prefixed("model.", raw) | prefixed("ema_model.module.", avg), False),
    "callback": lambda raw, avg: (
        {
            "state_dict": prefixed("net.", raw),
            "callbacks": {"EMA": {"ema_weights": prefixed("net.", avg)}},
        },
        False,
    ),
    "lightning": lambda raw, avg: (
        {
            "state_dict": prefixed("model.", avg),
            "current_model_state": prefixed("model.", raw),
            "averaging_state": {"n_averaged": torch.tensor(7)},
        },
        True,
    ),
}


@pytest.mark.parametrize("ema", [None, True, False])
@pytest.mark.parametrize("trainer", AVERAGES)
def test_averages_are_chosen_and_told(source, blank, tmp_path, trainer, ema):
    raw, average = source.state_dict(), moved(source.state_dict())
    content, main_is_average = AVERAGES[trainer](raw, average)
    report = load_weights(blank, save(tmp_path / "a.pth", content), ema=ema)
    averaged = main_is_average if ema is None else ema
    assert holds(blank, average if averaged else raw)
    assert (report.averaged is not None) == averaged
    assert len(report.unused) == 1
    assert not report.outside
    told = report.notes()
    assert len(told) == 1 + averaged
    assert told[-1].startswith("another set of weights was not used: ")
    assert ("averages over updates" in told[-1]) != averaged
    assert f"({len(raw)} tensors, " in told[-1]


def test_an_average_alone(source, blank, tmp_path):
    path = save(tmp_path / "a.pth", swa(source))
    report = load_weights(blank, path)
    assert holds(blank, source.state_dict())
    assert report.notes() == [
        "1 left out: n_averaged (not under 'module.')",
        "the weights are averages over updates (module.*)",
    ]
    assert refusal(blank, path, ema=False) == "holds only averaged weights (module.*)"
    load_weights(blank, path, ema=True)


def test_an_average_that_is_not_there(source, blank, tmp_path):
    path = save(tmp_path / "a.pth", source.state_dict())
    said = "holds no averaged weights that fit the model, such as state_dict_ema or model_ema"
    assert refusal(blank, path, ema=True) == said
    # An average of another network is none of this one.
    other = {"state_dict": source.state_dict(), "state_dict_ema": {"w": torch.ones(3)}}
    assert refusal(blank, save(path, other), ema=True) == said


def test_of_two_equals_the_first_is_taken_and_the_other_told(source, blank, tmp_path):
    student, teacher = source.state_dict(), moved(source.state_dict())
    path = save(tmp_path / "a.pth", {"student": student, "teacher": teacher, "epoch": 3})
    report = load_weights(blank, path)
    assert holds(blank, student)
    count = len(student)
    assert report.notes() == [f"another set of weights was not used: teacher ({count} tensors)"]


@pytest.mark.parametrize("ema", [None, True, False])
def test_averages_for_a_detector(source, tmp_path, ema):
    """The backbone alone, of an extractor that has other names for its parts."""
    raw, average = source.state_dict(), moved(source.state_dict())
    content = {"model": prefixed("backbone.body.", raw) | {"head.bias": torch.ones(3)}}
    content["model_ema"] = prefixed("module.backbone.body.", average)
    body = DenseBackbone("test_resnet")
    report = body.load(save(tmp_path / "a.pth", content), ema)
    assert torch.equal(body.net.bn1.weight, (average if ema else raw)["bn1.weight"])
    assert report.outside == ([] if ema else ["head.bias"])
    assert len(report.unused) == 1


# ---- values


def test_other_number_formats_are_told(source, blank, tmp_path):
    state = source.state_dict()
    half = {
        k: v.half() if k.startswith("layer1.") and v.is_floating_point() else v
        for k, v in state.items()
    }
    report = load_weights(blank, save(tmp_path / "a.pth", half))
    converted = [k for k, v in half.items() if v.dtype == torch.float16]
    assert set(report.converted) == set(converted)
    assert report.notes()[0].startswith(f"{len(converted)} converted: layer1.0.conv1.weight, ")
    assert report.notes()[0].endswith("(float16 to float32)")
    assert torch.equal(blank.layer1[0].conv1.weight, source.layer1[0].conv1.weight.half().float())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_values_that_are_no_numbers_are_told(source, blank, tmp_path, value, dtype):
    state = {k: v.to(dtype, copy=True) for k, v in source.state_dict().items()}
    for key in ("bn1.weight", "fc.bias"):
        state[key].view(-1)[1] = value
    report = load_weights(blank, save(tmp_path / "a.pth", state))
    assert report.notes()[-1] == "warning: 2 hold NaN or infinity: bn1.weight, fc.bias"


FORMATS = [torch.float64, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("form", ["archive", "bare", "safetensors"])
def test_every_number_format(source, blank, tmp_path, dtype, form):
    path = tmp_path / "a"
    state = source.state_dict()
    stored = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    if form == "safetensors":
        save_file(stored, path)
    else:
        torch.save(stored, path, _use_new_zipfile_serialization=form == "archive")
    load_weights(blank, path)
    for key, value in blank.state_dict().items():
        assert torch.equal(value, stored[key].to(value.dtype)), key


def test_old_files_do_not_count_batches(source, blank, tmp_path):
    state = {k: v for k, v in source.state_dict().items() if "num_batches" not in k}
    report = load_weights(blank, save(tmp_path / "a.pth", state))
    assert {key.rpartition(".")[2] for key in report.fresh} == {"num_batches_tracked"}
    assert report.notes()[0].endswith("(old files do not count batches)")
    body = DenseBackbone("test_resnet")
    assert body.load(tmp_path / "a.pth").fresh


# ---- several files


def shards(
    folder: Path, state: StateDict, stem: str = "model", suffix: str = "safetensors"
) -> Path:
    """Writes three files and their index, as the Hugging Face libraries do."""
    places = {}
    for i in range(3):
        name = f"{stem}-{i + 1:05}-of-00003.{suffix}"
        part = dict(list(state.items())[i::3])
        if suffix == "safetensors":
            save_file({k: v.contiguous() for k, v in part.items()}, folder / name)
        else:
            torch.save(part, folder / name)
        places |= dict.fromkeys(part, name)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 9}, "weight_map": places}, indent=2))
    return index


@pytest.mark.parametrize("named", ["index", "folder"])
@pytest.mark.parametrize(
    ("stem", "suffix", "prefix"),
    [("model", "safetensors", ""), ("pytorch_model", "bin", "timm_model.")],
)
def test_shards_are_read(source, blank, tmp_path, stem, suffix, prefix, named):
    index = shards(tmp_path, prefixed(prefix, source.state_dict()), stem, suffix)
    report = load_weights(blank, tmp_path if named == "folder" else index)
    assert holds(blank, source.state_dict())
    assert report.notes() == []


def test_a_folder_with_one_file(source, blank, tmp_path):
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    load_weights(blank, tmp_path)
    assert holds(blank, source.state_dict())


def test_a_missing_shard_is_named(source, blank, tmp_path):
    index = shards(tmp_path, source.state_dict())
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    message = refusal(blank, index)
    assert message == "lists model-00002-of-00003.safetensors, which is missing; put it beside it"


def test_a_damaged_shard_is_named(source, blank, tmp_path):
    index = shards(tmp_path, source.state_dict())
    shard = tmp_path / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"00002-of-00003\.safetensors: a truncated or damaged"):
        load_weights(blank, index)


def test_a_shard_without_its_tensor(source, blank, tmp_path):
    index = shards(tmp_path, source.state_dict())
    content = json.loads(index.read_text())
    content["weight_map"]["more.weight"] = "model-00002-of-00003.safetensors"
    index.write_text(json.dumps(content))
    assert refusal(blank, index) == (
        "lists 1 tensors that its files do not hold, such as more.weight in "
        "model-00002-of-00003.safetensors"
    )


@pytest.fixture
def secret(source, tmp_path) -> Path:
    """Weights that lie elsewhere."""
    path = tmp_path / "elsewhere" / "secret.safetensors"
    path.parent.mkdir()
    save_file(source.state_dict(), path)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "../elsewhere/secret.safetensors",
        "..",
        ".",
        "",
        "sub/../../elsewhere/secret.safetensors",
        "sub/secret.safetensors",
        "{secret}",
        "file://{secret}",
        "..\\elsewhere\\secret.safetensors",
        "C:secret.safetensors",
        "http://127.0.0.1/secret.safetensors",
        "secret.safetensors\0",
    ],
)
def test_an_index_names_no_file_elsewhere(source, blank, tmp_path, secret, name):
    folder = tmp_path / "theirs"
    (folder / "sub").mkdir(parents=True)
    os.link(secret, folder / "sub/secret.safetensors")
    name = name.format(secret=secret)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(source.state_dict(), name)}))
    message = refusal(blank, index)
    assert message.startswith("names "), message
    assert message.endswith(", must be files in its own folder")


@pytest.mark.parametrize("through", ["file", "folder"])
def test_links_that_leave_the_folder(source, blank, tmp_path, secret, through):
    folder = tmp_path / "theirs"
    folder.mkdir()
    if through == "file":
        (folder / "a.safetensors").symlink_to(secret)
    else:
        (folder / "b").symlink_to(secret.parent)
        (folder / "a.safetensors").symlink_to("b/secret.safetensors")
    index = folder / "model.safetensors.index.json"
    places = dict.fromkeys(source.state_dict(), "a.safetensors")
    index.write_text(json.dumps({"weight_map": places}))
    assert refusal(blank, index) == "names a.safetensors, a link that leaves its folder"


def test_a_cache_of_links(source, blank, tmp_path):
    """As Hugging Face's cache lays files out: contents in one folder, links by name in another."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots/0a1b"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    shards(snapshot, source.state_dict())
    for i, file in enumerate(sorted(snapshot.iterdir())):
        file.rename(blobs / f"{i:040x}")
        file.symlink_to(f"../../blobs/{i:040x}")
    load_weights(blank, snapshot)
    assert holds(blank, source.state_dict())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "damaged JSON, which lists no files of weights"),
        ("{}", 'JSON without a "weight_map", so it lists no files of weights'),
        ('{"weight_map": {}}', 'JSON without a "weight_map", so it lists no files of weights'),
        ('{"weight_map": ["a"]}', 'JSON without a "weight_map", so it lists no files of weights'),
        ('{"weight_map": {"a": 3}}', 'its "weight_map" must map names to file names'),
        ('{"weight_map": {"a": "model.safetensors.index.json"}}', None),
        ('{"a": ' + "[" * 100_000, "damaged JSON, which lists no files of weights"),
        ('{"a": ' + "9" * 5000 + "}", "damaged JSON, which lists no files of weights"),
        ('{"a": "\ud800"}', 'JSON without a "weight_map", so it lists no files of weights'),
        ('{"a": "' + "x" * 2**24 + '"}', 'JSON without a "weight_map", so it lists no files of w'),
    ],
    ids=["cut", "empty", "no file", "list", "number", "itself", "deep", "digits", "text", "long"],
)
def test_an_index_of_any_content(blank, tmp_path, text, said):
    index = tmp_path / "model.safetensors.index.json"
    index.write_bytes(text.encode("utf-8", "surrogatepass"))
    message = refusal(blank, index)
    assert message.startswith(said or "is an index, listed by another"), message


# ---- training scripts


def test_whatever_stands_beside_the_weights(source, blank, tmp_path):
    """Schedulers, random states, arguments and records of several libraries."""
    parameter = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 3, 5])
    content = {
        "state_dict": OrderedDict(source.state_dict()),
        "parameters": list(source.parameters()),
        "optimizer": optimizer.state_dict(),
        "scheduler": schedule.state_dict(),
        "rng": torch.get_rng_state(),
        "args": argparse.Namespace(device=torch.device("cuda", 0), size=torch.Size([3, 4])),
        "dtype": torch.bfloat16,
        "tags": {"a", "b"},
        "raw": b"\x00\xff",
        "array": bytearray(b"abc"),
        "number": 3 + 4j,
        "sparse": torch.eye(3).to_sparse(),
        "complex": torch.ones(2, dtype=torch.complex64),
        "expanded": torch.ones(1, 3).expand(5, 3),
        "slice": torch.arange(10.0)[2:6:2],
        "empty": torch.empty(0, 4),
        "unsigned": torch.ones(3, dtype=torch.uint16),
    }
    for old in (False, True):
        path = tmp_path / f"{old}.pth"
        torch.save(content, path, _use_new_zipfile_serialization=not old)
        load_weights(blank, path)
        assert holds(blank, source.state_dict())
