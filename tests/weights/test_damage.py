"""Damaged files: whatever bit or byte it is, they load as they were or are refused."""

import random
import resource
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from spanets.checkpoint import INFO_KEY, ModelInfo, load_checkpoint
from spanets.weights import WeightsError, read_checkpoint
from spanets.weights.integrity import check_intact, check_torch_reads

FORMS = ("archive", "bare", "safetensors")
ROOM = 300 * 2**20


def content() -> dict[str, Any]:
    state = {"model.w": torch.arange(3.0), "model.h": torch.ones(2, 2).half(), "model.e": []}
    state["model.e"] = torch.empty(0)
    info = ModelInfo("test_resnet", {}, ["a", "b"], {}, {}, "0").to_dict()
    return {"state_dict": OrderedDict(state), INFO_KEY: info, "epoch": 1}


def write(path: Path, form: str) -> bytes:
    if form == "safetensors":
        save_file(content()["state_dict"], path)
    else:
        torch.save(content(), path, _use_new_zipfile_serialization=form == "archive")
    return path.read_bytes()


def same(a: Any, b: Any) -> bool:
    """Whether two nested values are one, bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return bool(a == b)


@pytest.fixture(autouse=True)
def little_memory():
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def flips(whole: bytes, seed: int) -> list[bytes]:
    """The file with a bit of each byte flipped."""
    draw = random.Random(seed)
    damaged = []
    for i in range(len(whole)):
        flipped = bytearray(whole)
        flipped[i] ^= 1 << draw.randrange(8)
        damaged.append(bytes(flipped))
    return damaged


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in range(1, 9))]
)
@pytest.mark.parametrize("form", FORMS)
def test_a_flipped_bit(form, seed, tmp_path):
    """An archive has checksums, so what loads is what was saved; of others no error but ours."""
    path = tmp_path / "a.ckpt"
    whole = write(path, form)
    reference = read_checkpoint(path)
    refused = 0
    for damaged in flips(whole, seed):
        path.write_bytes(damaged)
        start = time.process_time()
        try:
            found = read_checkpoint(path)
        except WeightsError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert form != "archive" or same(found, reference)
        assert time.process_time() - start < 1
    assert refused > len(whole) / 4


def test_a_flipped_bit_of_a_run_s_checkpoint(tmp_path):
    """What passes all checks is read by torch as well, which goes on with the run."""
    path = tmp_path / "last.ckpt"
    whole = write(path, "archive")
    reference = torch.load(path, weights_only=True)
    directory = whole.index(b"PK\x01\x02")
    for damaged in flips(whole, seed=1)[directory:]:
        path.write_bytes(damaged)
        try:
            load_checkpoint(path)
            check_torch_reads(path)
        except WeightsError:
            continue
        assert same(torch.load(path, weights_only=True), reference)


def test_a_flipped_bit_in_a_part_s_name(tmp_path):
    """Which makes it no text, in the list of parts or at the part itself."""
    path = tmp_path / "last.ckpt"
    whole = write(path, "archive")
    start, names = 0, 0
    while (start := whole.find(b"/data/", start + 1)) >= 0:
        flipped = bytearray(whole)
        flipped[start + 1] ^= 0x80
        path.write_bytes(flipped)
        with pytest.raises(WeightsError, match=r"damaged"):
            load_checkpoint(path)
        with path.open("rb") as file, pytest.raises(WeightsError, match=r"damaged"):
            check_intact(file, path)
        names += 1
    assert names == 6  # three storages, each named twice


@pytest.mark.parametrize("form", FORMS)
def test_every_truncation(form, tmp_path):
    path = tmp_path / "a.ckpt"
    whole = write(path, form)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError):
            read_checkpoint(path)


def test_a_storage_of_no_values_at_the_end_is_whole_too(tmp_path):
    """Storages lie in the order of their addresses: only here it is certain which is the last."""
    path = tmp_path / "a.ckpt"
    torch.save({"w": torch.empty(0)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    assert read_checkpoint(path)["w"].shape == (0,)
    for length in range(len(whole) - 8, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError):
            read_checkpoint(path)
