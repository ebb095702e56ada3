"""An interrupted loop over batches goes on with what it had, and gives the same in the end."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from spanets.data import kept_results
from spanets.data.image_level.dataset import evaluation_loader, unreadable_of
from spanets.data.kept_results import KeptLoop, KeptResults
from spanets.data.ranks import shared_batches
from spanets.data.samples import Samples
from spanets.formats.coco.results import to_results
from spanets.training.image_level_evaluation import run_batches

PREPROCESSING = {
    "input_size": [3, 8, 8],
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Samples:
    """Eleven images of which the third and the last cannot be read."""
    folder = tmp_path_factory.mktemp("images")
    draw = np.random.default_rng(0)
    images = [folder / f"{i}.png" for i in range(11)]
    for i, path in enumerate(images):
        if i in (2, 10):
            path.write_bytes(b"nothing")
        else:
            Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return Samples(images=images, labels=[i % 2 for i in range(11)], classes=["a", "b"])


class Stopping(nn.Module):
    """The mean of each image; raises KeyboardInterrupt instead of the batch of number `left`."""

    def __init__(self, left: int | None) -> None:
        super().__init__()
        self.left, self.batches = left, 0

    def forward(self, x):
        if self.batches == self.left:
            raise KeyboardInterrupt
        self.batches += 1
        return x.mean((1, 2, 3)).unsqueeze(1)


def run(samples, size, left, folder):
    """Returns outputs, unreadable images and number of batches computed; None if interrupted."""
    loader_of = {"max_unreadable": 0.5}
    kept = None if folder is None else KeptResults(folder, {"model": "mean"}, "stop")
    model = Stopping(left)
    try:
        with shared_batches(kept):
            loader = evaluation_loader(samples, PREPROCESSING, size, 0, **loader_of)
            found = [outputs for outputs, _ in run_batches(model, loader)]
            unreadable = unreadable_of(loader)
            unreadable.gather()
    except KeyboardInterrupt:
        return None
    return np.concatenate(found), unreadable.indices(), model.batches


@given(size=st.integers(1, 12), stops=st.lists(st.integers(0, 5), max_size=3))
def test_the_end_is_that_of_a_run_in_one_go(samples, size, stops):
    expected, bad, batches = run(samples, size, None, None)
    assert bad == [2, 10]
    left = batches
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "parts"
        for stop in stops:
            assert (run(samples, size, stop, folder) is None) == (stop < left)
            left -= min(stop, left)
        outputs, unreadable, computed = run(samples, size, None, folder)
    assert np.array_equal(outputs, expected)
    assert unreadable == bad
    assert computed == left


def test_results_are_written_while_it_runs(samples, tmp_path, monkeypatch):
    """A process that is killed loses what it computed since the last file."""
    monkeypatch.setattr(kept_results, "INTERVAL", 0)
    written: list[int] = []

    class Watching(Stopping):
        def forward(self, x):
            written.append(len(list(tmp_path.glob("*.pt"))))
            return super().forward(x)

    with shared_batches(KeptResults(tmp_path, {}, "stop")):
        loader = evaluation_loader(samples, PREPROCESSING, 4, 0, max_unreadable=0.5)
        list(run_batches(Watching(None), loader))
    assert written == [0, 1, 2]


def test_a_file_of_another_loop_is_not_mistaken(samples, tmp_path):
    """Two loops in one command, such as a calibration and then the measuring."""
    folder = tmp_path / "parts"

    def both(second: int | None) -> list[np.ndarray] | None:
        half = samples.subset(range(6))
        try:
            with shared_batches(KeptResults(folder, {}, "stop")):
                found = []
                for part, left in ((half, None), (samples, second)):
                    loader = evaluation_loader(part, PREPROCESSING, 2, 0, max_unreadable=0.5)
                    found.append(
                        np.concatenate([o for o, _ in run_batches(Stopping(left), loader)])
                    )
                return found
        except KeyboardInterrupt:
            return None

    assert both(2) is None
    found = both(None)
    assert found is not None
    one, two = found
    assert np.array_equal(one, two[: len(one)])
    assert torch.tensor(two).shape == (9, 1)


def test_results_of_every_task_are_read_back(tmp_path):
    """Detections with masks, confusion counts, vectors of an embedding, and a batch without any."""
    pytest.importorskip("pycocotools")
    masks = torch.zeros(1, 1, 20, 30)
    masks[0, 0, 2:9, 3:8] = 1
    found = {"boxes": torch.rand(1, 4), "labels": torch.tensor([1]), "scores": torch.rand(1)}
    detections = {7: to_results(7, {**found, "masks": masks}, [5])}
    counts, vectors = torch.eye(3, dtype=torch.int64), torch.rand(1, 4)
    facts = {"--tta-scales": (1.0, 2.0), "--layout": None}
    loop = KeptLoop(tmp_path, 0, facts, 0, "stop")
    for number, result in enumerate(
        (detections, (counts, None), ([(0, b"\x00\xff")], vectors, {1: "a.png: damaged"}), None)
    ):
        loop.add(number, result, list)
    loop.write([3])
    kept = KeptLoop(tmp_path, 0, facts, 0, "stop")
    assert kept.found == {3}
    assert kept[0] == detections
    assert torch.equal(kept[1][0], counts)
    assert kept[2][0] == [(0, b"\x00\xff")]
    assert torch.equal(kept[2][1], vectors)
    assert kept[2][2] == {1: "a.png: damaged"}
    assert kept[3] is None
