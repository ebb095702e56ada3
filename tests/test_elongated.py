"""Images too elongated to be resized: unreadable in training, evaluation and prediction alike."""

import pytest
from PIL import Image

from spanets.classification.recipe import ClassificationData
from spanets.data.image_level.dataset import ImageDataset, evaluation_loader
from spanets.data.image_level.transforms import preprocessing_of
from spanets.data.samples import Samples
from spanets_runtime.images import ImageError
from spanets_runtime.predict import predict_images
from spanets_runtime.preprocessing import Preprocessing

LONG = "1x200000 pixels are too elongated to be resized to 35"


@pytest.fixture
def samples(tmp_path):
    paths = [tmp_path / "long.png", tmp_path / "good.png"]
    Image.new("L", (1, 200_000)).save(paths[0])
    Image.new("L", (9, 12)).save(paths[1])
    return Samples(paths, [0, 1], ["a", "b"])


def test_one_rule(samples):
    data = ClassificationData(image_size=32, crop_pct=0.9)
    training = ImageDataset(samples, lambda image: image.size, short_side=35)
    with pytest.raises(ImageError, match=LONG) as caught:
        training[0]
    assert str(caught.value).startswith(f"{samples.images[0]}: ")
    assert "data.max_unreadable" in str(caught.value)

    tolerant = ImageDataset(
        *(samples, lambda image: image.size), max_unreadable=0.5, replace=True, short_side=35
    )
    assert tolerant[0] == ((9, 12), 1)
    assert tolerant.unreadable.reason(0) == LONG

    loader = evaluation_loader(samples, preprocessing_of(data), 2, 0, max_unreadable=0.5)
    ((images, labels),) = loader
    assert images.shape == (1, 3, 32, 32)
    assert labels.tolist() == [1]

    preprocess = Preprocessing.parse(preprocessing_of(data), "a.ckpt")
    found = predict_images(samples.images, lambda i: preprocess(i)[0, 0, :2], ["a", "b"], 1)
    first, second = found
    assert first.error == f"{samples.images[0]}: {LONG}"
    assert second.error is None
