"""Training with what cannot be used: one line says so, and nothing is lost."""

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from small_runs import call, obey_permissions

import spanets_cli
from spanets.classification.module import Classification
from spanets.data.image_level.transforms import evaluation_transform, preprocessing_of, standardize
from spanets.recipe import load_recipe
from spanets.training.devices import describe_devices
from spanets_runtime.errors import UsageError
from spanets_runtime.images import load_image
from spanets_runtime.machine import count_cores, most_parallel

# ---- where nothing can be written


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("closed", "Permission denied"),
        ("closed/run", "Permission denied"),
        ("file/run", "Not a directory"),
    ],
)
def test_a_run_folder_that_cannot_be_written(out, reason, small_recipe, tmp_path, process):
    (tmp_path / "closed").mkdir(mode=0o555)
    (tmp_path / "file").touch()

    def run() -> int:
        obey_permissions()
        return spanets_cli.main(["train", small_recipe, "--out", str(tmp_path / out)])

    status, printed, said = process(run).wait()
    if status == 77:
        pytest.skip("a superuser may write everywhere")
    assert (status, printed) == (1, "")
    assert re.fullmatch(rf"spanets: {tmp_path}/{out}[^\n]*\({reason}\)[^\n]*\n", said)


# ---- what is said at once


@pytest.fixture
def workplace(photos, tmp_path, monkeypatch) -> None:
    """Folders that cannot be used."""
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("file").touch()
    for name in ("few/cat/0.png", "few/cat/1.png", "few/dog/0.png", "one/cat/0.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / "cat/0.png", name)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--data.root", "null"], 2, "data.root is not set; give the folder of your images"),
        (["--data.root", "missing"], 1, "missing: no such folder"),
        (["--data.root", "empty"], 1, "empty: the folder is empty; put the images in"),
        (["--data.root", "one"], 1, "one: only one class, 'cat'; add the folders of the others"),
        (["--data.root", "few"], 1, "few: only one image of class dog"),
        (["--model.name", "spanet_nan"], 2, "unknown model 'spanet_nan'; did you mean 'spanet_na"),
        (["--model.args.foo", "1"], 2, "model test_resnet with {'foo': 1}: "),
        (["--model.args.pretrained", "true"], 2, "model argument 'pretrained' is not allowed"),
        (["--model.name", "spanet_nano", "--data.image_size", "31"], 2, "model spanet_nano cannot"),
        (["--model.args.in_chans", "1"], 2, "model test_resnet cannot take images of 32x32 pixels"),
        (["--model.weights", "missing.pth"], 1, "missing.pth: no such file"),
        (["--optim.name", "adamww"], 2, "optim.name: unknown optimizer 'adamww'; did you mean 'a"),
        (["--optim.batch_size", "7", "--trainer.accumulate", "2"], 2, "optim.batch_size 7 is not"),
        (["--data.mixup", "1", "--optim.batch_size", "5"], 2, "data.mixup and data.cutmix pair"),
        (["--data.soft_targets", "true"], 2, "data.soft_targets is true, but this data set has"),
        (["--data.auto_augment", "nonsense"], 2, "data.auto_augment is 'nonsense', must be a pol"),
        (
            ["--trainer.devices", "64", "--optim.batch_size", "64"],
            1,
            "12 training images are too few for 64 devices",
        ),
        (["--resume"], 2, "new: no run to resume; omit --resume to start one"),
        (["--out", "file"], 2, "--out file: is a file; name a folder"),
        (["--out", "file/run"], 1, "file/run: cannot be written (Not a directory)"),
    ],
)
def test_runs_that_cannot_start(
    words, status, said, small_recipe, photos, tmp_path, monkeypatch, refused
):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("file").touch()
    Path("one/cat").mkdir(parents=True)
    for name in ("few/cat/0.png", "few/cat/1.png", "few/dog/0.png", "one/cat/0.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes((photos / "cat/0.png").read_bytes())
    if "--out" not in words:
        words = [*words, "--out", "new"]
    assert refused(status, "train", small_recipe, *words).startswith(said)
    assert not Path("new").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="has what it asks for")
def test_no_such_accelerator(small_recipe, tmp_path, refused):
    words = ["train", small_recipe, "--out", tmp_path / "new", "--trainer.accelerator", "gpu"]
    assert refused(2, *words).startswith("trainer: No supported gpu backend found!")


def test_missing_extras(small_recipe, small_run, monkeypatch, refused):
    for module in ("matplotlib", "lightning"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            line = f"{module} is not installed; run: pip install 'spanets[train]'"
            assert refused(1, "train", small_recipe) == line


def test_missing_elpv(monkeypatch, refused, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = refused(1, "train", "elpv", "--out", tmp_path / "new")
    assert line.startswith("the ELPV solar cells are not installed; run: pip install elpv-dataset")


# ---- images that cannot be read, in training and evaluation


@pytest.fixture
def damaged(tmp_path, photos) -> Path:
    """The photos, one of them cut off in the middle."""
    root = Path(shutil.copytree(photos, tmp_path / "damaged"))
    bad = root / "cat/3.png"
    bad.write_bytes(bad.read_bytes()[:1000])
    return root


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_stops_training_with_its_name(
    workers, damaged, small_recipe, tmp_path, capsys
):
    out = tmp_path / "run"
    words = ["--data.root", damaged, "--data.workers", workers, "--out", out]
    status, printed, said = call(capsys, "train", small_recipe, *words)
    assert status == 1
    assert printed == ""
    (line,) = (line for line in said.splitlines() if not line.startswith("epoch"))
    assert line.startswith(f"spanets: {damaged}/cat/3.png: truncated or corrupt image (")
    assert "; remove or replace it, or raise data.max_unreadable; fix this, then go" in line
    # Mended, the run goes on.
    (damaged / "cat/3.png").write_bytes((damaged / "cat/2.png").read_bytes())
    assert call(capsys, *line.split("go on with: spanets ")[1].split())[0] == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_stops_evaluation(workers, damaged, small_run, refused):
    line = refused(1, "eval", small_run / "last.ckpt", "--data", damaged, "--workers", workers)
    assert line.startswith(f"{damaged}/cat/3.png: truncated or corrupt image (")
    assert line.endswith("; remove or replace it, or raise data.max_unreadable")


@pytest.mark.slow  # torch looks every five seconds
def test_a_process_that_loads_images_dies(small_recipe, tmp_path, monkeypatch, refused):
    def die(path):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("spanets.data.unreadable.load_image", die)
    words = ["train", small_recipe, "--data.workers", "1", "--out", tmp_path / "run"]
    line = refused(1, *words)
    assert line.startswith("a process that loads images died, perhaps for want of memory (")
    assert "lower data.workers" in line


def test_a_loss_that_is_no_number(small_recipe, tmp_path, monkeypatch, capsys):
    """It stops the run, and the batch is kept with the names of its files."""
    step = Classification.training_step

    def diverge(self, batch, index):
        late = (self.current_epoch, index) == (1, 1)
        return step(self, [batch[0] * (float("nan") if late else 1), batch[1]], index)

    monkeypatch.setattr(Classification, "training_step", diverge)
    out = tmp_path / "run"
    words = ["train", small_recipe, "--out", out, "--data.hflip", 0]
    words += ["--data.scale", "[1, 1]", "--data.ratio", "[1, 1]"]
    words += ["--data.train_interpolation", "bicubic"]
    status, _, said = call(capsys, *words)
    assert status == 1
    line = said.splitlines()[-1]
    assert line.startswith("spanets: the loss is nan in epoch 2, batch 2; lower optim.lr")
    assert line.endswith(f"; its batch is in {out}/diverged.safetensors")
    assert torch.load(out / "last.ckpt", weights_only=True)["epoch"] == 0

    with safe_open(out / "diverged.safetensors", "pt") as file:
        metadata = file.metadata()
        images, targets = file.get_tensor("images"), file.get_tensor("targets")
    assert (metadata["epoch"], metadata["batch"]) == ("2", "2")
    files = json.loads(metadata["files"])
    assert len(files) == len(images) == len(targets) == 4
    # Without random crops the images are those of evaluation.
    data = load_recipe(small_recipe, ["--data.crop_pct", "1"]).data
    transform = evaluation_transform(preprocessing_of(data))
    for name, image, target in zip(files, images, targets, strict=True):
        assert Path(name).parent.name == ("cat", "dog")[target]
        found = standardize(image[None], data)[0]
        torch.testing.assert_close(found, transform(load_image(name)))


# ---- numbers for a larger machine


def test_more_than_the_machine_bears_is_lowered_and_told(
    small_recipe, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("spanets.training.devices.most_parallel", lambda: 1)
    words = ["--data.workers", "9", "--trainer.threads", "9", "--trainer.epochs", "1"]
    status, _, said = call(capsys, "train", small_recipe, *words, "--out", tmp_path / "run")
    assert status == 0
    notes = [line for line in said.splitlines() if "lowered" in line]
    cores = count_cores()
    assert notes == [
        f"data.workers 9 is lowered to 1, for {cores} cores",
        f"trainer.threads 9 is lowered to 1, for {cores} cores",
    ]
    (start,) = json.loads((tmp_path / "run/environment.json").read_text())["starts"]
    assert start["notes"][:2] == notes


def test_thousands_of_processes_are_refused(small_recipe, tmp_path, refused):
    assert 16 <= most_parallel() <= 1024
    words = ["--trainer.devices", "1000", "--optim.batch_size", "1000"]
    recipe = load_recipe(small_recipe, words)
    with pytest.raises(UsageError, match=r"trainer\.devices is 1000, each a process on \d+ cores"):
        describe_devices(recipe)
    line = refused(2, "eval", "a.ckpt", "--workers", "3000")
    assert line.startswith("argument --workers: 3000 is no whole number from 0 to ")
    line = refused(2, "bench", "spanet_nano", "--threads", 10**9)
    assert line.startswith("argument --threads: 1000000000 is no whole number from 1 to ")
    line = refused(2, "bench", "spanet_nano", "--batch", 60000, "--size", 8000)
    assert line.startswith("--batch 60000 of --size 8000 has 3,840,000,000,000 pixels, allowed: ")


# ---- paths that no system call takes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data.root", "~nosuchuser/photos"], "~nosuchuser/photos: no such folder"),
        (
            ["--data.source", "webdataset", "--data.root", "http://[::1"],
            "http://[::1: is no address (Invalid IPv6 URL)",
        ),
        (
            ["--data.source", "webdataset", "--data.root", "https://a:b/c.tar"],
            "https://a:b/c.tar: is no address (Port could not be cast to integer value as 'b')",
        ),
    ],
)
def test_paths_that_cannot_be(words, said, small_recipe, tmp_path, refused):
    assert refused(1, "train", small_recipe, *words, "--out", tmp_path / "run").startswith(said)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("embedded null byte"), "a path holds a NUL character; correct the file that"),
        (RuntimeError("Could not determine home directory."), "the home folder is not known; wri"),
    ],
)
def test_a_path_in_a_file_that_cannot_be(error, said, monkeypatch, refused):
    def fail(_):
        raise error

    monkeypatch.setattr("spanets_runtime.model_table.model_table", fail)
    assert refused(1, "models").startswith(said)
