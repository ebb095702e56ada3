"""Damaged images: replaced in training, left out of evaluation, counted, listed, and bounded."""

import csv
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from small_runs import call, free_port, member

import spanets_cli
from spanets.classification.data import make_loaders
from spanets.data.sampler import EpochSampler
from spanets.data.samples import Samples
from spanets.data.unreadable import Unreadable, draw_replacement
from spanets.recipe import load_recipe
from spanets.training.callbacks import RunKeeper
from spanets.training.engine import train
from spanets.training.unreadable_images import UnreadableImages
from spanets_runtime.errors import UserError

ONE = ["--trainer.epochs", "1"]
ALLOWED = ["--data.max_unreadable", "0.25"]  # three of twelve for training, one of four


@pytest.fixture(scope="module")
def damaged(photos, tmp_path_factory) -> Path:
    """The photos by part; two of the twelve for training are damaged, and one of the others."""
    root = tmp_path_factory.mktemp("damaged")
    for name in ("cat", "dog"):
        for i, path in enumerate(sorted((photos / name).iterdir())):
            folder = root / ("train" if i < 6 else "val") / name
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder)
    for name in BAD:
        (root / name).write_bytes(b"no image")
    return root


BAD = ["train/cat/1.png", "train/dog/4.png", "val/dog/7.png"]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take longer than the training."""
    for name in ("training.report.plot_curves", "classification.report.plot_confusion"):
        monkeypatch.setattr(f"spanets.{name}", lambda *_, **__: None)


@pytest.fixture
def recipe(small_recipe, damaged):
    def make(*words: str):
        return load_recipe(small_recipe, ["--data.root", str(damaged), *ALLOWED, *words])

    return make


def listed(out: Path) -> list[tuple[str, str]]:
    with (out / "unreadable.csv").open() as file:
        return [(row["image"], row["reason"]) for row in csv.DictReader(file)]


def batches(recipe, epoch: int):
    loaders = make_loaders(recipe, 4)
    loaders.train.sampler.set_epoch(epoch)
    return list(loaders.train), loaders.unreadable["train"]


def test_others_take_their_places_whoever_loads(recipe):
    for epoch in range(3):
        alone, found = batches(recipe(), epoch)
        shared, found_by_others = batches(recipe("--data.workers", "2"), epoch)
        assert [len(labels) for _, labels in alone] == [4, 4, 4]
        for a, b in zip(alone, shared, strict=True):
            assert torch.equal(a[0], b[0])
            assert torch.equal(a[1], b[1])
        assert found.indices() == found_by_others.indices() == [1, 10]


def test_the_rest_of_an_epoch_is_what_it_was_before(recipe, damaged, photos, small_recipe):
    """Only the images that are damaged differ from those of the whole data set."""
    whole = Path(shutil.copytree(damaged, damaged.parent / "whole", dirs_exist_ok=True))
    for name in BAD:
        shutil.copy(photos / name.split("/", 1)[1], whole / name)
    repaired, _ = batches(load_recipe(small_recipe, ["--data.root", str(whole)]), 1)
    found, _ = batches(recipe(), 1)
    pairs = zip(
        (image for images, _ in found for image in images),
        (image for images, _ in repaired for image in images),
        strict=True,
    )
    assert sum(not torch.equal(a, b) for a, b in pairs) == 2


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_counts_and_lists_them(workers, recipe, damaged, tmp_path, capsys):
    results = train(recipe("--data.workers", workers, *ONE), tmp_path / "run")
    expected = [str(damaged / name) for name in BAD]
    assert [name for name, _ in listed(tmp_path / "run")] == expected
    assert all(
        reason.startswith("not an image, or none of") for _, reason in listed(tmp_path / "run")
    )
    line = f"unreadable: 2 of 12 train images, 1 of 4 val images; see {tmp_path}/run/unreadable.csv"
    assert capsys.readouterr().err.count(line) == 1
    assert results["images"] == 3
    assert [text.partition(": ")[0] for text in results["unreadable"]] == expected[2:]


def test_a_resumed_run_is_the_uninterrupted_one(recipe, tmp_path, monkeypatch, capsys):
    train(recipe(), tmp_path / "whole")
    save = RunKeeper.on_train_epoch_end

    def save_and_stop(self, trainer, module):
        save(self, trainer, module)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(UserError, match="stopped"):
        patch.setattr(RunKeeper, "on_train_epoch_end", save_and_stop)
        train(recipe(), tmp_path / "parts")
    capsys.readouterr()
    train(recipe("--data.workers", "2"), tmp_path / "parts", resume=True)
    assert "unreadable: " not in capsys.readouterr().err  # said once
    a, b = (
        torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("whole", "parts")
    )
    assert a["callbacks"]["UnreadableImages"] == b["callbacks"]["UnreadableImages"]
    assert all(torch.equal(a["state_dict"][key], b["state_dict"][key]) for key in a["state_dict"])


@pytest.mark.parametrize("workers", ["0", "2"])
def test_too_many_stop_the_run(workers, recipe, small_recipe, damaged, tmp_path, capsys):
    words = ["--data.root", damaged, "--data.max_unreadable", "0.1", "--data.workers", workers]
    out = tmp_path / "run"
    status, _, said = call(capsys, "train", small_recipe, *words, "--out", out)
    assert status == 1
    line = said.splitlines()[-1]
    start = "spanets: 2 of 12 images cannot be read, and data.max_unreadable 0.1 allows 1; one is "
    assert line.startswith(f"{start}{damaged}/train/")
    assert ": not an image, or none of " in line
    assert "fix this, then go on with: spanets train" in line
    assert {name for name, _ in listed(out)} == {str(damaged / name) for name in BAD[:2]}
    # The share may be raised, and the run goes on.
    words[3] = "0.25"
    assert call(capsys, "train", small_recipe, *words, "--out", out, "--resume")[0] == 0


@pytest.fixture
def on_two(process, small_recipe, tmp_path):
    """Trains on two processes, each of which draws one of the two damaged images."""

    def run(root: Path, share: str) -> list[tuple[int, str, str]]:
        seed = next(seed for seed in range(99) if finders(seed) == {1: {0}, 10: {1}})
        words = ["train", small_recipe, "--out", tmp_path / "run", "--data.root", root, *ONE]
        words += ["--seed", seed, "--trainer.devices", 2, "--data.max_unreadable", share]
        port = free_port()
        train = partial(spanets_cli.main, [str(word) for word in words])
        running = [process(member(rank, 2, port, train)) for rank in range(2)]
        return [one.wait() for one in running]

    return run


def finders(seed: int) -> dict[int, set[int]]:
    """Which of two processes load the damaged ones of twelve images, for others too."""
    found: dict[int, set[int]] = {1: set(), 10: set()}
    for place, (epoch, index) in enumerate(EpochSampler(12, shuffle=True, seed=seed)):
        if index in found:
            found[index].add(place % 2)
            other = draw_replacement(seed, epoch, index, 1, 12)
            found.get(other, set()).add(place % 2)
    return found


def test_two_processes_count_and_list_them_together(on_two, damaged, tmp_path):
    first, second = on_two(damaged, "0.25")
    assert (first[0], second[0]) == (0, 0), (first, second)
    assert [name for name, _ in listed(tmp_path / "run")] == [str(damaged / name) for name in BAD]
    line = "unreadable: 2 of 12 train images, 1 of 4 val images; see "
    assert first[2].count(line) == 1
    assert "unreadable" not in second[2]


def test_too_many_of_two_processes_together_stop_the_run(on_two, damaged, photos, tmp_path):
    """None found more than are allowed."""
    root = Path(shutil.copytree(damaged, tmp_path / "photos"))
    shutil.copy(photos / "dog/7.png", root / "val/dog")
    for status, _, said in on_two(root, "0.1"):
        assert status == 1
        line = "2 of 12 images cannot be read, and data.max_unreadable 0.1 allows 1; one is "
        assert line in said.splitlines()[-1]
    assert [name for name, _ in listed(tmp_path / "run")] == [str(root / n) for n in BAD[:2]]


def test_evaluation_says_how_many(recipe, damaged, tmp_path, capsys):
    train(recipe(*ONE), tmp_path / "run")
    capsys.readouterr()
    words = ["eval", tmp_path / "run/last.ckpt", "--batch", "1", "--workers", "0"]
    status, printed, _ = call(capsys, *words)
    assert status == 0
    first, second, *_ = printed.splitlines()
    assert first.endswith("last.ckpt on val (3 images)")
    assert second.startswith(
        f"  left out as unreadable: 1, such as {damaged / BAD[2]}: not an image"
    )
    found = json.loads(call(capsys, *words, "--json")[1])
    assert len(found["unreadable"]) == 1
    assert sum(map(sum, found["confusion"])) == found["images"] == 3
    # A folder with more than the share is refused.
    line = call(capsys, *words, "--data", damaged / "train")[1:]
    assert "left out as unreadable: 2" in line[0]
    for i in range(2, 5):
        (damaged / f"train/cat/{i}.png").write_bytes(b"")
    status, printed, said = call(capsys, *words, "--data", damaged / "train")
    assert (status, printed) == (1, "")
    assert said.startswith("spanets: 4 of 12 images cannot be read, and data.max_unreadable 0.25 ")


def test_a_checkpoint_within_an_epoch_leaves_the_news_to_its_end(tmp_path):
    """The other processes are told there, and a process has saved by then."""
    samples = Samples([Path("a.png"), Path("b.png")], [0, 1], ["cat", "dog"])
    part = Unreadable(samples, 0.5)
    callback = UnreadableImages(tmp_path, {"train": part})
    part.add([1])
    saved = callback.state_dict()
    assert list(saved["reasons"]["train"]) == [1]
    assert callback.state_dict() == saved
    assert callback.reasons == {"train": {}}
