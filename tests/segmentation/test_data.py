"""From a recipe to batches of images and masks."""

import numpy as np
import pytest
import torch
from PIL import Image

from spanets.recipe import parse_recipe
from spanets.segmentation.data import (
    MaskDataset,
    TrainTransform,
    choose_crop,
    evaluation_loader,
    make_loaders,
    preprocessing_of,
    read_parts,
)
from spanets.segmentation.masks.values import IGNORED
from spanets.segmentation.recipe import SegmentationData, SegmentationRecipe
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.resize_to_fit import ResizeToFit, fit_size

SMALL = {"resize": (32, 128), "crop": 32, "workers": 0, "num_classes": 4}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Nine images whose mask tells the colour of a pixel: its red is 60 times the class."""
    root = tmp_path_factory.mktemp("masked")
    noise = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 3)):
        for folder in ("images", "masks"):
            (root / folder / part).mkdir(parents=True)
        for i in range(count):
            blocks = noise.integers(0, 4, (5, 6 + i), dtype=np.uint8)
            classes = blocks.repeat(8, 0).repeat(8, 1)
            pixels = np.stack([classes * 60, *noise.integers(0, 255, (2, *classes.shape))], -1)
            Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / part / f"{i}.png")
            Image.fromarray(classes).save(root / "masks" / part / f"{i}.png")
    return root


def recipe(root, **changes) -> SegmentationRecipe:
    return SegmentationRecipe(data=SegmentationData(root=str(root), **{**SMALL, **changes}))


# ---- sizes


@pytest.mark.parametrize(
    ("size", "limits", "fitted"),
    [
        ((683, 512), (512, 2048), (683, 512)),
        ((300, 400), (512, 2048), (512, 683)),
        ((100, 1000), (512, 2048), (205, 2048)),  # 4 : 1 is where the long side takes over
        ((1, 5000), (512, 2048), (1, 2048)),
    ],
)
def test_sizes_keep_their_shape(size, limits, fitted):
    assert fit_size(*size, *limits) == fitted
    assert fit_size(*size[::-1], *limits) == fitted[::-1]


def test_fitting_an_image():
    fitting = ResizeToFit((40, 80), (0.5, 0.5, 0.5), (0.25, 0.5, 1.0))
    white = fitting(Image.new("RGB", (300, 200), "white"))
    assert white.shape == (3, 40, 60)
    assert white[:, 0, 0].tolist() == [2, 1, 0.5]
    assert fitting(Image.new("RGB", (5000, 10))).shape == (3, 32, 80)  # backbones take no less


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "no 'resize'"),
        ({"resize": [200, 100]}, "must be"),
        ({"resize": [200, 10**9]}, "must be"),
        ({"resize": [32, "x"]}, "invalid literal"),
        ({"resize": [50, 100], "mean": [0, 0, 0], "std": [1, 1, 0]}, "none that is 0"),
    ],
)
def test_damaged_descriptions(values, message):
    with pytest.raises(UserError, match=f"x.ckpt: the preprocessing is damaged .*{message}"):
        ResizeToFit.parse({"mean": [0, 0, 0], "std": [1, 1, 1], **values}, "x.ckpt")


# ---- training


def test_mask_and_image_stay_together(root):
    """Red is proportional to the class: wherever it is not blurred at an edge, they agree."""
    plain = {"photometric": False, "quarter_turns": True}
    settings = recipe(root, **plain, mean=(0, 0, 0), std=(1, 1, 1)).data
    dataset = MaskDataset(read_parts(settings)["train"], TrainTransform(settings))
    near = seen = 0
    for epoch in range(10):
        for index in range(len(dataset)):
            image, mask = dataset[epoch, index]
            assert image.shape == (3, 32, 32)
            assert mask.dtype == torch.int64
            known = mask != IGNORED
            assert not image[:, ~known].any()  # padding has the mean colour
            error = (image[0] * 255 - 60 * mask)[known].abs()
            near += (error < 15).sum().item()
            seen += known.sum().item()
    assert near / seen > 0.75  # edges of blocks of 4 to 13 pixels are blurred
    assert seen < 60 * 32 * 32  # some were padded


def test_draws_depend_on_seed_epoch_and_image_alone(root):
    settings = recipe(root).data
    samples = read_parts(settings)["train"]
    one, other = (MaskDataset(samples, TrainTransform(settings), seed=5) for _ in range(2))
    first = one[2, 4]
    torch.rand(3)
    one[0, 0]
    for a, b in zip(first, other[2, 4], strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first[0], one[3, 4][0])
    assert not torch.equal(first[0], MaskDataset(samples, TrainTransform(settings), 6)[2, 4][0])
    before = torch.get_rng_state()
    one[1, 1]
    assert torch.equal(torch.get_rng_state(), before)


def test_crops_are_not_all_one_class():
    labels = torch.zeros(40, 400, dtype=torch.uint8)
    labels[:, 350:] = 1
    boxes = [choose_crop(labels, 40, 0.75) for _ in range(40)]
    shares = [labels[:, left : left + 40].float().mean() for _, left, _, _ in boxes]
    plain = [choose_crop(labels, 40, 1.0) for _ in range(40)]
    mixed = [0.25 < share < 0.75 for share in shares]
    # Of one draw 6 % are mixed, of ten 43 %; with a share of 1 any two classes will do.
    assert 5 < sum(mixed) < 35
    assert all(box[2:] == (40, 40) for box in boxes + plain)
    assert choose_crop(labels[:10, :20], 40, 0.75) == (0, 0, 10, 20)


def test_ignored_pixels_are_no_class():
    labels = torch.full((40, 80), IGNORED, dtype=torch.uint8)
    labels[:, :40] = 1
    labels[:, 40:44] = 2
    lefts = {choose_crop(labels, 40, 0.75)[1] for _ in range(30)}
    assert max(lefts) <= 40  # always ends, though nearly every draw is refused


def test_batches(root):
    loaders = make_loaders(recipe(root), batch_size=4)
    images, masks = next(iter(loaders.train))
    assert images.shape == (4, 3, 32, 32)
    assert masks.shape == (4, 32, 32)
    assert len(loaders.train) == 1
    assert loaders.classes == ["0", "1", "2", "3"]
    for i, (image, mask) in enumerate(loaders.val):
        assert mask.shape == (1, 40, 48 + 8 * i)
        assert image.shape == (1, 3, *fit_size(40, 48 + 8 * i, 32, 128))


def test_a_run_is_told_what_its_data_lack(root):
    loaders = make_loaders(recipe(root, num_classes=5), batch_size=4)
    assert loaders.notes == (
        "train: 1 class has no pixel in 6 masks: '4'",
        "val: 1 class has no pixel in 3 masks: '4'",
    )


def test_workers_change_nothing(root):
    alone, helped = (make_loaders(recipe(root, workers=n), 3) for n in (0, 1))
    for a, b in zip(alone.train, helped.train, strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])


# ---- what is refused


def test_data_that_cannot_be_used(root):
    with pytest.raises(UsageError, match=r"data\.root is not set"):
        make_loaders(recipe(root).__class__(), 4)
    with pytest.raises(UserError, match="6 training images are too few for 4 devices: batch norm"):
        make_loaders(recipe(root), 4, processes=4)
    with pytest.raises(UserError, match=r"masks hold numbers that are no class: 3 \(first: 3 in "):
        make_loaders(recipe(root, num_classes=3), 4)
    settings = recipe(root, num_classes=3).data
    dataset = evaluation_loader(read_parts(settings)["val"], preprocessing_of(settings), 0)
    with pytest.raises(UserError, match=r"val/0\.png: has class number 3, .*; mend, replace"):
        next(iter(dataset))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.scale", "[2, 1]"], "data.scale is"),
        (["--data.resize", "[2048, 512]"], "data.resize is .* must be the smaller"),
        (["--data.slide", "[600, 512]"], "data.slide is .* must be the smaller"),
        (["--data.crop", "8"], "data.crop is 8, allowed: 32 to 4096"),
        (["--model.head", "upernett"], "allowed: semantic_fpn, upernet; did you mean 'upernet'"),
        (["--data.layout", "ade"], "did you mean 'ade20k'"),
        (["--optim.poly", "2"], "optim.poly: unknown key"),
    ],
)
def test_recipes_that_cannot_be_used(words, message):
    with pytest.raises(UsageError, match=message):
        parse_recipe({"task": "segmentation"}, words)
