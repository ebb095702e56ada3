"""Checkpoints: whole or absent, complete, and harmless whatever they hold."""

import errno
import os
import pickle
import random
import tempfile
from pathlib import Path

import pytest
import timm
import torch
from opened import restore_model

import spanets
from spanets.backbones.factory import create_model
from spanets.checkpoint import INFO_KEY, ModelInfo, load_checkpoint, save_torch
from spanets.recipe import load_recipe
from spanets.weights import WeightsError
from spanets.weights.integrity import check_torch_reads
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.files import write_atomically


def info(**changes) -> dict:
    whole = ModelInfo(
        model="test_resnet",
        model_args={},
        classes=["cat", "dog"],
        preprocessing={},
        recipe={},
        version="0",
    )
    return {**whole.to_dict(), **changes}


def save(path: Path, **changes) -> Path:
    """Writes a checkpoint that loads, but for the changes."""
    model = timm.create_model("test_resnet", num_classes=2)
    weights = {f"model.{key}": value for key, value in model.state_dict().items()}
    content = {"state_dict": weights, INFO_KEY: info(), **changes}
    torch.save({key: value for key, value in content.items() if value is not None}, path)
    return path


def failure(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        restore_model(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


# ---- what a run leaves


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_a_run_leaves_checkpoints_with_all_that_is_needed(name, small_run, small_recipe):
    model, info = restore_model(small_run / name)
    recipe = load_recipe(small_recipe)
    assert info.model == "test_resnet"
    assert info.classes == ["cat", "dog"]
    assert info.version == spanets.__version__
    assert info.recipe == recipe.to_dict()
    assert info.preprocessing["input_size"] == [3, 32, 32]
    assert info.preprocessing["mean"] == list(recipe.data.mean)
    assert not model.training
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 2)


def test_weights_are_those_of_the_file(tmp_path):
    path = save(tmp_path / "a.ckpt")
    model, _ = restore_model(path)
    _, weights = load_checkpoint(path)
    for key, value in model.state_dict().items():
        assert torch.equal(value, weights[key])


def test_a_run_is_read_without_running_anything(small_run):
    """The whole of it, with the state of the optimizer and of every callback."""
    content = torch.load(small_run / "last.ckpt", weights_only=True)
    assert content["optimizer_states"][0]["state"]


# ---- other files


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_malicious_files_run_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in (("a.ckpt", Bomb()), ("b.ckpt", {INFO_KEY: info(recipe=Bomb())})):
        torch.save(content, name)
        assert "could run code, so it is refused" in failure(Path(name))
    Path("c.ckpt").write_bytes(pickle.dumps(Bomb(), protocol=2))
    assert failure(Path("c.ckpt"))
    assert not Path("exploded").exists()


def test_foreign_and_damaged_files(tmp_path, small_run):
    whole = (small_run / "last.ckpt").read_bytes()
    for name, content in (
        ("empty", b""),
        ("text", b"not a checkpoint"),
        ("page", b"<!DOCTYPE html><html></html>"),
        ("half", whole[: len(whole) // 2]),
        ("start", whole[:100]),
    ):
        path = tmp_path / f"{name}.ckpt"
        path.write_bytes(content)
        assert failure(path)
    assert failure(tmp_path / "none.ckpt") == "no such file"


def test_weights_alone_are_no_checkpoint(tmp_path):
    path = tmp_path / "resnet18.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    assert failure(path).startswith("names neither its model nor its classes; give a checkpoint")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({INFO_KEY: info(format=2)}, "written in format 2, this version reads 1; update spanets"),
        ({INFO_KEY: "info"}, "names neither its model nor its classes"),
        ({INFO_KEY: info(classes="cat")}, "damaged, without classes"),
        ({INFO_KEY: info(classes=[])}, "damaged, without classes"),
        ({INFO_KEY: info(model=None, recipe=3)}, "damaged, without model, recipe"),
        ({"state_dict": None}, "holds no weights"),
        ({"state_dict": [1]}, "holds no weights"),
        ({INFO_KEY: info(model="test_resnett")}, "unknown model 'test_resnett'; did you mean 'te"),
        ({INFO_KEY: info(model="hf-hub:timm/resnet18")}, "unknown model 'hf-hub:timm/resnet18'"),
        ({INFO_KEY: info(model="local-dir:/tmp")}, "unknown model 'local-dir:/tmp'"),
        ({INFO_KEY: info(model_args={"pretrained": True})}, "model argument 'pretrained' is not"),
        ({INFO_KEY: info(model_args={"checkpoint_path": "x"})}, "model argument 'checkpoint_path'"),
        ({INFO_KEY: info(model_args={"pretrained_cfg": {"url": "x"}})}, "model argument 'pretrai"),
        ({INFO_KEY: info(model_args={"foo": 1})}, "model test_resnet with {'foo': 1}: "),
        ({INFO_KEY: info(model="test_vit")}, "its weights are not those of test_vit: "),
    ],
)
def test_cards_that_cannot_be_used(changes, said, tmp_path):
    assert failure(save(tmp_path / "a.ckpt", **changes)).startswith(said)


def test_weights_of_another_model(tmp_path):
    three = info(classes=["cat", "dog", "cow"])
    message = failure(save(tmp_path / "a.ckpt", **{INFO_KEY: three}))
    assert message == (
        "its weights are not those of test_resnet: 2 of another shape, such as fc.bias"
    )
    weights = torch.load(save(tmp_path / "b.ckpt"), weights_only=True)["state_dict"]
    weights["model.more"] = weights.pop("model.fc.bias")
    assert failure(save(tmp_path / "c.ckpt", state_dict=weights)) == (
        "its weights are not those of test_resnet: 1 missing, such as fc.bias; "
        "1 unexpected, such as more"
    )


def test_nothing_is_fetched(monkeypatch):
    """A name with a tag, as timm has them, builds the model and no more."""
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda *_, **__: pytest.fail())
    create_model("test_resnet.r160_in1k", {})
    for arguments in ({"pretrained": True}, {"pretrained_cfg_overlay": {"file": "x"}}):
        with pytest.raises(UsageError, match="it would fetch weights"):
            create_model("test_resnet", arguments)


def same(a, b) -> bool:
    """Whether two nested values are one, bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path):
    """Wherever it is: torch alone reads most such files without a word, and wrong."""
    path = save(tmp_path / "a.ckpt")
    whole, reference = path.read_bytes(), torch.load(path, weights_only=True)
    directory = whole.index(b"PK\x01\x02")  # at the end, and small: of its bits many are tried
    draw = random.Random(0)
    found = 0
    for start in (0, 0, directory) * 50:
        at = draw.randrange(start, len(whole))
        flipped = bytearray(whole)
        flipped[at] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            load_checkpoint(path)
            check_torch_reads(path)
        except WeightsError:
            found += 1
        else:
            assert same(torch.load(path, weights_only=True), reference), f"byte {at}"
    assert found > 100  # the others were in padding, times, and names that nothing reads


# ---- writing


def out_of_space(keep: int):
    """A write that fails after some bytes, as on a full disk."""

    def write(file) -> None:
        file.write(b"x" * keep)
        file.flush()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return write


def test_files_are_written(tmp_path):
    path = tmp_path / "new/folder/a.ckpt"
    write_atomically(path, lambda file: file.write(b"one"))
    write_atomically(path, lambda file: file.write(b"two"))
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["a.ckpt"]


def test_two_that_write_the_same_at_once_leave_one_whole(tmp_path):
    path = tmp_path / "index.json"

    def late(file):
        file.write(b"a")
        write_atomically(path, lambda other: other.write(b"ab"))
        assert path.read_bytes() == b"ab"
        file.write(b"b")

    write_atomically(path, late)
    assert path.read_bytes() == b"ab"
    assert os.listdir(tmp_path) == ["index.json"]


def test_a_full_disk_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.ckpt"
    with pytest.raises(UserError) as caught:
        write_atomically(path, out_of_space(10_000))
    assert str(caught.value) == f"{path}: cannot be written (No space left on device)"
    assert not os.listdir(tmp_path)

    path.write_bytes(b"good")
    with pytest.raises(UserError, match=r"\(No space left on device\); the one written before is"):
        write_atomically(path, out_of_space(10_000))
    assert path.read_bytes() == b"good"
    assert os.listdir(tmp_path) == ["a.ckpt"]


def test_the_file_before_is_kept(tmp_path):
    path, previous = tmp_path / "last", tmp_path / "previous"
    for text in (b"one", b"two", b"three"):
        write_atomically(path, lambda file, text=text: file.write(text), previous)
    assert (path.read_bytes(), previous.read_bytes()) == (b"three", b"two")
    with pytest.raises(UserError, match="No space left on device"):
        write_atomically(path, out_of_space(10_000), previous)
    assert (path.read_bytes(), previous.read_bytes()) == (b"three", b"two")
    assert sorted(os.listdir(tmp_path)) == ["last", "previous"]


def test_the_file_before_is_kept_where_nothing_can_be_linked(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr("os.link", refuse)
    test_the_file_before_is_kept(tmp_path)


def test_a_write_cut_off_between_its_renames_is_felt_by_no_later_one(tmp_path):
    path, previous = tmp_path / "last", tmp_path / "previous"
    path.write_bytes(b"one")
    os.link(path, previous)
    os.link(path, tmp_path / ".previous.01234567.part")
    write_atomically(path, lambda file: file.write(b"two"), previous)
    assert (path.read_bytes(), previous.read_bytes()) == (b"two", b"one")
    assert sorted(os.listdir(tmp_path)) == ["last", "previous"]


class Full:
    """A file with little room, through which torch's own writer meets the error."""

    def __init__(self, file, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


@pytest.mark.parametrize("room", [0, 100, 5_000, 100_000])
def test_a_full_disk_under_torch(room, tmp_path):
    content = {"a": torch.zeros(1000), "b": torch.zeros(200, 200)}
    with pytest.raises(UserError, match=r"a\.ckpt: cannot be written \(No space left on device\)$"):
        write_atomically(tmp_path / "a.ckpt", lambda file: torch.save(content, Full(file, room)))
    assert not os.listdir(tmp_path)


def test_interrupted_writes_leave_nothing(tmp_path):
    for kind in (KeyboardInterrupt, ZeroDivisionError, RuntimeError):

        def write(file, kind=kind):
            file.write(b"half")
            raise kind

        with pytest.raises(kind):
            write_atomically(tmp_path / "a.ckpt", write)
    assert not os.listdir(tmp_path)


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"a\.ckpt: cannot be written \("):
        save_torch({}, tmp_path / "file/a.ckpt")


def test_a_read_only_folder(process):
    # pytest's own folders are closed to all but their owner, who as root may write everywhere.
    with tempfile.TemporaryDirectory() as root:
        path = Path(root, "a.ckpt")
        path.write_bytes(b"good")
        Path(root).chmod(0o555)

        def write_as_anyone() -> int:
            if os.geteuid() == 0:
                os.seteuid(65534)
            save_torch({}, path)
            return 0

        _, _, said = process(write_as_anyone).wait()
        expected = f"{path}: cannot be written (Permission denied); the one written before"
        assert f"UserError: {expected} is untouched" in said
        assert path.read_bytes() == b"good"
        Path(root).chmod(0o755)
