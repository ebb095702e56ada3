"""Whatever the images come from: each is read once an epoch, by whoever, and in the same order."""

import csv
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from small_runs import make_photos

from spanets.classification.data import make_loaders
from spanets.data.sources.shard_writer import write_shards
from spanets.recipe import load_recipe
from spanets.training.callbacks import RunKeeper
from spanets.training.engine import train
from spanets_runtime.errors import UsageError, UserError

COUNT = 13  # a prime: no number of processes divides it
SOURCES = ["folder", "webdataset", "hf"]


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    """The same images in every form, each of a class of its own, by which batches tell it."""
    base = tmp_path_factory.mktemp("sources")
    for part in ("train", "val"):
        make_photos(base / "folder" / part, **{f"c{i:02}": 1 for i in range(COUNT)})
    write_shards(base / "folder", base / "webdataset", 20_000)  # of three or four images
    datasets = pytest.importorskip("datasets")
    cache = str(base / "cache")
    rows = datasets.load_dataset("imagefolder", data_dir=str(base / "folder"), cache_dir=cache)
    rows.save_to_disk(base / "hf")
    return {name: base / name for name in SOURCES}


@pytest.fixture
def recipe(roots, small_recipe):
    def make(source: str, *words: str):
        return load_recipe(
            small_recipe, ["--data.source", source, "--data.root", str(roots[source]), *words]
        )

    return make


def labels_of(loader) -> list[int]:
    return [int(label) for _, labels in loader for label in labels]


@pytest.mark.parametrize(
    ("world", "workers"), [(1, "0"), (2, "0"), (4, "0"), (5, "0"), (1, "2"), (2, "2")]
)
@pytest.mark.parametrize(
    "words", [("webdataset",), ("webdataset", "--data.shuffle_shards", "2"), ("hf",)], ids=str
)
def test_each_image_once_an_epoch(words, world, workers, recipe, monkeypatch):
    made = [make_loaders(recipe(*words, "--data.workers", workers), 1, world)] * world
    left_out = set()
    for epoch in range(3):
        read, evaluated = [], []
        for rank, loaders in enumerate(made):
            monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
            loaders.train.sampler.set_epoch(epoch)
            read += labels_of(loaders.train)
            evaluated += labels_of(loaders.val) if epoch == 0 else []
        assert len(set(read)) == len(read) == COUNT - COUNT % world
        assert epoch > 0 or sorted(evaluated) == list(range(COUNT))
        left_out.add(frozenset(set(range(COUNT)) - set(read)))
    assert world == 1 or len(left_out) > 1  # others in every epoch


@pytest.mark.parametrize("source", SOURCES[1:])
def test_batches_are_those_of_the_folder(source, recipe):
    expected, found = (make_loaders(recipe(name), 4) for name in ("folder", source))
    assert found.classes == expected.classes
    for part in ("train", "val"):
        pairs = zip(getattr(expected, part), getattr(found, part), strict=True)
        for (images, labels), (same_images, same_labels) in pairs:
            assert torch.equal(images, same_images)
            assert torch.equal(labels, same_labels)


@pytest.mark.parametrize(
    "words",
    [("webdataset", "--data.shuffle_shards", "2"), pytest.param(("hf",), marks=pytest.mark.slow)],
    ids=str,
)
def test_an_epoch_goes_on_at_a_batch(words, recipe):
    loader = make_loaders(recipe(*words), 3).train
    loader.sampler.set_epoch(4)
    whole = list(loader)
    loader.sampler.skip(6)
    for (images, labels), (again, same) in zip(whole[2:], loader, strict=True):
        assert torch.equal(images, again)
        assert torch.equal(labels, same)


@pytest.mark.parametrize("words", [("webdataset", "--data.shuffle_shards", "2"), ("hf",)], ids=str)
def test_a_run_resumed_within_an_epoch_is_the_uninterrupted_one(
    words, recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr("spanets.classification.task.ClassificationTask.pictures", no_pictures)
    chosen = recipe(*words, "--trainer.save_every", "1", "--optim.batch_size", "3")
    train(chosen, tmp_path / "whole")
    save = RunKeeper.on_train_batch_end

    def save_and_stop(self, trainer, module, outputs, batch, index):
        save(self, trainer, module, outputs, batch, index)
        if (trainer.current_epoch, index) == (1, 1):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(UserError, match="stopped"):
        patch.setattr(RunKeeper, "on_train_batch_end", save_and_stop)
        train(chosen, tmp_path / "parts")
    train(chosen, tmp_path / "parts", resume=True)
    states = [
        torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "parts")
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


def no_pictures(*_) -> dict[str, str]:
    """They take longer than the training."""
    return {}


def losses(out: Path) -> list[str]:
    with (out / "metrics.csv").open() as file:
        return [row["train/loss"] for row in csv.DictReader(file)]


def test_windows_are_of_shards(recipe):
    with pytest.raises(UsageError, match=r"data\.shuffle_shards is for data\.source webdataset"):
        make_loaders(recipe("folder", "--data.shuffle_shards", "2"), 4)


@pytest.mark.parametrize(
    ("source", "said"), [("webdataset", "a folder of shards or a"), ("hf", "a folder of save_to")]
)
def test_a_root_is_needed(source, said, small_recipe, refused):
    words = ["--data.source", source, "--data.root", "null"]
    line = refused(2, "train", small_recipe, *words)
    assert line.startswith(f"data.root is not set; give {said}")
