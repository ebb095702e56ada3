"""Files that are made to exhaust their reader: refused at once, in little memory."""

import io
import json
import os
import pickle
import resource
import struct
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from spanets.weights import WeightsError, read_checkpoint, read_state_dict

# What reading a file of some kilobytes may need beside torch itself.
ROOM = 400 * 2**20
SECONDS = 20  # of a processor; ten times what the slowest takes
VALUES = 50_000


@pytest.fixture(autouse=True)
def fewer(monkeypatch):
    """Lowers the limits that a test would take seconds to reach."""
    monkeypatch.setattr("spanets.weights.budget.MAX_VALUES", VALUES)
    monkeypatch.setattr("spanets.weights.files._MAX_TENSORS", 1000)


@contextmanager
def little_memory() -> Iterator[None]:
    """Lets this process allocate `ROOM` more, whether it is touched or not."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def refusal(path: Path) -> str:
    """What is said of a file, which is found out soon and in little memory."""
    start = time.process_time()
    with little_memory(), pytest.raises(WeightsError) as caught:
        read_checkpoint(path)
    assert time.process_time() - start < SECONDS
    message = str(caught.value).replace("\\x00", "\0")  # messages may escape it
    assert message.startswith(f"{path}: ")
    assert len(message) < 500
    return message.removeprefix(f"{path}: ")


# ---- pickles


def archive(path: Path, data: bytes, storages: dict[str, bytes] | None = None) -> Path:
    """Writes an archive with this pickle, as torch does."""
    parts = {f"data/{key}": content for key, content in (storages or {}).items()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in {"data.pkl": data, "byteorder": b"little", **parts}.items():
            file.writestr(f"archive/{name}", content)
    return path


def bare(path: Path, data: bytes) -> Path:
    """Writes the form of older releases with this pickle."""
    head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    path.write_bytes(b"".join(pickle.dumps(value, 2) for value in head) + data)
    return path


FORMS: dict[str, Callable[[Path, bytes], Path]] = {"archive": archive, "bare": bare}


def called(module: str, name: str, arguments: bytes) -> bytes:
    """A pickle of one call."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + arguments + b"R."


def number(value: int) -> bytes:
    digits = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(digits)]) + digits


def tensor(size: tuple[int, ...], stride: tuple[int, ...], count: int, offset: int = 0) -> bytes:
    """A pickle of `{"weight": a float32 view of a storage of so many values}`."""
    view = b"".join(b"(" + b"".join(map(number, numbers)) + b"t" for numbers in (size, stride))
    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        + number(count)
        + b"tQ"
    )
    hooks = b"ccollections\nOrderedDict\n)R"
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + view
    return b"\x80\x02}X\x06\x00\x00\x00weight" + rebuilt + b"\x89" + hooks + b"tRs."


BIG = 10**10
NESTED_KEY = b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"Ns."

PICKLES = {
    "bytearray": (called("builtins", "bytearray", number(BIG) + b"\x85"), "a truncated or damaged"),
    "python 2's": (called("__builtin__", "bytearray", number(BIG) + b"\x85"), "a truncated or da"),
    "bytes": (b"\x80\x05\x96" + struct.pack("<Q", BIG) + b".", "a truncated or damaged"),
    "long bytes": (b"\x80\x04\x8e" + struct.pack("<Q", BIG) + b".", "a truncated or damaged"),
    "long text": (b"\x80\x04\x8d" + struct.pack("<Q", BIG) + b".", "a truncated or damaged"),
    "long number": (b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".", "a truncated or da"),
    "digits": (b"\x80\x02I" + b"9" * 100_000 + b"\n.", "a truncated or damaged"),
    "tensor of a size": (called("torch", "Tensor", number(BIG) + b"\x85"), "a truncated or dam"),
    "typed tensor": (called("torch", "FloatTensor", number(BIG) + b"\x85"), "holds Python objects"),
    "storage": (called("torch", "FloatStorage", number(BIG) + b"\x85"), "a truncated or damaged"),
    "range": (called("builtins", "range", number(BIG) + b"\x85"), "holds Python objects (built"),
    "NumPy's type": (called("numpy", "dtype", b"X\x06\x00\x00\x00V99999\x85"), "holds numbers of"),
    "number in the memo": (b"\x80\x02Nr\xff\xff\xff\x7f.", "holds a NoneType, not a state dict"),
    "nested keys": (NESTED_KEY, "a truncated or damaged"),
    "nested set": (called("builtins", "set", b"]" + NESTED_KEY[3:-3] + b"a\x85"), "a truncated or"),
    "deep": (b"\x80\x02" + b"]" * VALUES + b"a" * (VALUES - 1) + b".", "holds more than 50,000"),
    "many": (b"\x80\x02(" + b"\x8f" * 2 * VALUES + b"t.", "holds more than 50,000 values"),
    "without end": (b"\x80\x02" + b"N0" * VALUES, "a truncated or damaged"),
    "copies of a text": (
        b"\x80\x02X" + struct.pack("<I", 10**6) + b"a" * 10**6 + b"q\x00"
        + b"X\x06\x00\x00\x00latin1q\x01"
        + b"c_codecs\nencode\nq\x02" + b"h\x02h\x00h\x01\x86R" * 10**3 + b".",
        "declares far more values than it holds",
    ),
    "copies of a list": (
        b"\x80\x02](" + b"N" * 10**4 + b"eq\x00cbuiltins\nset\nq\x01" + b"h\x01h\x00\x85R" * 10**3
        + b".",
        "holds more than 50,000 values",
    ),
    "expanded": (tensor((10**6, 10**6), (0, 0), 1), "declares far more values than it holds"),
    "overlapping": (tensor((10**5, 10**5), (1, 1), 200_000), "declares far more values"),
    "huge dimension": (tensor((2**62,), (0,), 1), "declares far more values than it holds"),
    "beyond": (tensor((10,), (1,), 4), "a truncated or damaged"),
    "before": (tensor((2,), (1,), 4, offset=-1), "a truncated or damaged"),
    "behind": (tensor((2,), (1,), 4, offset=3), "a truncated or damaged"),
    "backwards": (tensor((2,), (-1,), 4), "a truncated or damaged"),
    "no storage": (tensor((1,), (1,), BIG), "a truncated or damaged"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("attack", PICKLES)
def test_pickles_that_exhaust(attack, form, tmp_path):
    data, message = PICKLES[attack]
    path = tmp_path / "a.pth"
    if form == "archive":
        count = 200_000 if attack == "overlapping" else 1 if "storage" not in attack else 4
        count = 4 if attack in ("beyond", "before", "behind", "backwards") else count
        archive(path, data, {"0": bytes(4 * count)})
    else:
        # Older files have their storages at the end.
        keys = pickle.dumps(["0"], 2) if b"storage" in data else pickle.dumps([], 2)
        bare(path, data.replace(b"tQ", b"NtQ") + keys + bytes(2**20))
    said = refusal(path)
    assert said.startswith(message), said


@pytest.mark.parametrize("form", FORMS)
def test_many_views_of_one_storage(form, tmp_path):
    """Each takes no memory here, but would in a model."""
    weight = torch.zeros(10**6)
    state = {f"layer{i}.weight": weight[:] for i in range(100)}
    path = tmp_path / "a.pth"
    torch.save(state, path, _use_new_zipfile_serialization=form == "archive")
    assert refusal(path) == "declares far more values than it holds, so it is refused"
    tied = {f"layer{i}.weight": weight[:] for i in range(10)}
    torch.save(tied, path, _use_new_zipfile_serialization=form == "archive")
    assert read_state_dict(path).keys() == tied.keys()


# ---- archives


def test_a_compressed_part(tmp_path):
    """A hundredth of what it becomes."""
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(2**24))
    assert path.stat().st_size < 2**18
    assert refusal(path).startswith("its part archive/data.pkl is compressed or encrypted, which")


def overlapping() -> bytes:
    """An archive whose thousand parts are one, of a megabyte."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", bytes(2**20))
        first = file.infolist()[0]
        for i in range(1000):
            info = zipfile.ZipInfo(f"archive/data/{i}")
            info.header_offset, info.CRC = first.header_offset, first.CRC
            info.file_size = info.compress_size = first.file_size
            file.filelist.append(info)
    return buffer.getvalue()


def with_long_directory() -> bytes:
    """An archive whose list of parts alone has 20 MB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for i in range(300):
            file.writestr(f"{i:065000}", b"")
    return buffer.getvalue()


def twice() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({}, 2))
        file.writestr("archive/DATA.pkl", pickle.dumps({}, 2))
    return buffer.getvalue()


@pytest.mark.parametrize("make", [overlapping, with_long_directory, twice])
def test_archives_that_multiply(make, tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(make())
    assert refusal(path) == "a truncated or damaged PyTorch file"


@pytest.mark.parametrize("position", ["part", "directory"])
def test_a_part_of_a_declared_size(position, tmp_path):
    """The sizes in an archive's own headers, changed to 4 GB."""
    path = tmp_path / "a.pth"
    torch.save({"weight": torch.ones(4)}, path)
    content = bytearray(path.read_bytes())
    mark = b"PK\x01\x02" if position == "directory" else b"PK\x03\x04"
    place = 20 if position == "directory" else 18
    start = content.index(mark)
    while start >= 0:
        content[start + place : start + place + 8] = b"\xf0\xff\xff\xff" * 2
        start = content.find(mark, start + 1)
    path.write_bytes(content)
    if position == "directory":
        assert refusal(path) == "a truncated or damaged PyTorch file"
    else:  # torch itself writes none there
        assert read_checkpoint(path)["weight"].equal(torch.ones(4))


# ---- safetensors


def safetensors(path: Path, header: dict[str, Any], data: bytes = b"", length: int = 0) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", length or len(text)) + text + data)
    return path


def row(shape: list[int], end: int, start: int = 0) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("header", "length"),
    [
        ({"weight": row([10**9], 4 * 10**9)}, 0),
        ({"weight": row([2**62, 4], 16)}, 0),
        ({"weight": row([4], 16)}, 10**9),
        ({"weight": row([4], 16)}, 2**63),
        ({f"w{i}": row([4], 16) for i in range(1000)}, 0),  # one piece of data, a thousand names
        ({"weight": row([4], 16), "__metadata__": [[[1]]]}, 0),
    ],
    ids=["size", "overflow", "long header", "endless header", "overlap", "metadata"],
)
def test_safetensors_that_declare_too_much(header, length, tmp_path):
    path = safetensors(tmp_path / "a.safetensors", header, bytes(16), length)
    assert refusal(path) == "a truncated or damaged safetensors file"


def test_safetensors_of_many_tensors(tmp_path):
    """Tensors without values cost nothing in a file."""
    many = {f"{i:x}": row([0], 0) for i in range(1001)}
    said = refusal(safetensors(tmp_path / "a.safetensors", many))
    assert said == "holds more than 1,000 tensors, too many for weights"
    padded = {"weight": row([0], 0), "__metadata__": {"text": "a" * 2**24}}
    said = refusal(safetensors(tmp_path / "b.safetensors", padded))
    assert said == "its list of tensors is too long for weights"


# ---- what is no file


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_pipe_is_not_waited_for(suffix, tmp_path):
    path = tmp_path / f"pipe{suffix}"
    os.mkfifo(path)
    said = []
    thread = threading.Thread(target=lambda: said.append(refusal(path)), daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert said == ["is a pipe or device, must be a regular file"]


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/random"])
def test_a_device_is_not_read(device, tmp_path):
    assert refusal(Path(device)) == "is a pipe or device, must be a regular file"
    link = tmp_path / "a.pth"
    link.symlink_to(device)
    assert refusal(link) == "is a pipe or device, must be a regular file"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a\0b.pth", "no such file, its name holds a NUL character"),
        ("a" * 300, "cannot be read (File name too long)"),
        ("a.pth/b.pth", "cannot be read (Not a directory)"),
        ("link.pth", "cannot be read (Too many levels of symbolic links)"),
    ],
)
def test_names_of_no_file(name, said, tmp_path):
    save_file({}, tmp_path / "a.pth")
    (tmp_path / "link.pth").symlink_to("link.pth")
    assert refusal(tmp_path / name) == said


# ---- several at once


@pytest.mark.parametrize("form", ["archive", "bare"])
def test_threads_read_at_once(form, tmp_path):
    """Torch's own list of allowed names is one for all threads; it is not touched."""
    import argparse

    path = tmp_path / "a.pth"
    state = {f"layer{i}.weight": torch.full((3,), float(i)) for i in range(30)}
    content = {"state_dict": state, "args": argparse.Namespace(lr=1e-3)}
    torch.save(content, path, _use_new_zipfile_serialization=form == "archive")
    before = torch.serialization.get_safe_globals()
    failures: list[object] = []

    def read() -> None:
        for _ in range(10):
            try:
                found = read_checkpoint(path)
                assert found["args"].lr == 1e-3
                assert all(torch.equal(found["state_dict"][key], state[key]) for key in state)
            except BaseException as error:
                failures.append(error)
            if torch.serialization.get_safe_globals() != before:
                failures.append("the list of allowed names")

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
