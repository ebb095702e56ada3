"""`data.keep_decoded`: training images in memory are those of the files."""

import pytest
import torch

from spanets.data.image_level.dataset import ImageDataset
from spanets.data.image_level.recipe import ImageLevelData
from spanets.data.image_level.transforms import train_transform
from spanets.data.samples import Samples
from spanets_runtime import images

SIZE = 3 * 40 * 40


@pytest.fixture
def samples(photos) -> Samples:
    paths = sorted(photos.glob("*/*.png"))
    return Samples(paths, [0] * len(paths), ["a", "b"])


@pytest.mark.parametrize("room", [0, SIZE, 5 * SIZE + 1, 1000 * SIZE])
def test_batches_are_the_same_in_every_epoch(room, samples, monkeypatch):
    transform = train_transform(ImageLevelData(image_size=32, color_jitter=0.4))
    plain, kept = (ImageDataset(samples, transform, seed=3, keep=keep) for keep in (0, room))
    read = []
    monkeypatch.setattr(
        "spanets.data.unreadable.load_image",
        lambda path: read.append(path) or images.load_image(path),
    )
    for epoch in range(3):
        keys = [(epoch, i) for i in range(len(samples))]
        for (one, _), (other, _) in zip(
            plain.__getitems__(keys), kept.__getitems__(keys), strict=True
        ):
            assert torch.equal(one, other)
    remembered = min(len(samples), room // SIZE)
    assert len(read) == 2 * 3 * len(samples) - 2 * remembered
