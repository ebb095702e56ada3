"""Batches of images: what is in them depends on the recipe, the seed and the epoch alone."""

import re

import pytest
import torch
import torch.distributed as dist
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from small_runs import make_photos

from spanets.classification.data import make_loaders, make_mixing
from spanets.classification.recipe import ClassificationData as Data
from spanets.data.image_level.dataset import ImageDataset, evaluation_loader
from spanets.data.image_level.splits import read_splits
from spanets.data.image_level.transforms import (
    evaluation_transform,
    preprocessing_of,
    standardize,
    train_transform,
)
from spanets.data.loaders import EvenBatches, RankSampler, max_workers, plain_worker_errors
from spanets.data.sampler import EpochSampler, seed_sample
from spanets.data.samples import Samples, map_classes
from spanets.recipe import load_recipe
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.images import ImageError, load_image


def images_of(loader) -> list[torch.Tensor]:
    return [image for images, _ in loader for image in images]


@pytest.fixture
def loaders(small_recipe):
    def make(batch: int = 4, *words: str, processes: int = 1):
        return make_loaders(load_recipe(small_recipe, words), batch, processes)

    return make


# ---- batches


@pytest.mark.parametrize(
    ("asked", "cores", "batch", "started"),
    [(0, 2, 4, 0), (2, 2, 4, 2), (1000, 2, 4, 3), (1000, 2, 1, 12), (1000, 64, 1, 12)],
)
def test_no_more_processes_than_are_of_use(asked, cores, batch, started, loaders, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    made = loaders(batch, "--data.workers", str(asked))
    assert made.train.num_workers == started
    assert max_workers() == max(16, 4 * cores)


def test_loaders(loaders):
    train, val = loaders().train, loaders().val
    assert loaders().classes == ["cat", "dog"]
    assert [images.shape for images, _ in train] == [(4, 3, 32, 32)] * 3
    assert sorted(torch.cat([labels for _, labels in train]).tolist()) == [0] * 6 + [1] * 6
    ((images, labels),) = val
    assert images.shape == (4, 3, 32, 32)
    assert labels.tolist() == [0, 0, 1, 1]


def test_augmentation_depends_on_the_epoch_and_not_on_the_workers(loaders):
    alone, shared = loaders(4).train, loaders(4, "--data.workers", "2").train
    seen = []
    for epoch in (0, 1):
        for loader in (alone, shared):
            loader.sampler.set_epoch(epoch)
            seen.append(torch.stack(images_of(loader)))
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[2], seen[3])
    assert not torch.equal(seen[0], seen[2])


def test_the_seed_changes_order_and_augmentation(loaders):
    a = images_of(loaders(4).train)
    b = images_of(loaders(4, "--seed", "1").train)
    assert not any(torch.equal(x, y) for x in a for y in b)


@pytest.mark.parametrize(
    ("batch", "words", "sizes"),
    [
        (5, [], [5, 5]),
        (11, [], [11]),
        (12, [], [12]),
        (64, [], [12]),
        (64, ["--data.mixup", "1", "--data.val_fraction", "0.3"], [10]),  # of eleven, in pairs
    ],
)
def test_batches_are_whole(batch, words, sizes, loaders):
    assert [len(labels) for _, labels in loaders(batch, *words).train] == sizes


def test_evaluation_sees_every_image_once_in_order(photos):
    samples = read_splits(Data(root=str(photos)))["train"]
    data = Data(image_size=32)
    loader = evaluation_loader(samples, preprocessing_of(data), batch_size=5, workers=0)
    transform = evaluation_transform(preprocessing_of(data))
    for image, path in zip(images_of(loader), samples.images, strict=True):
        assert torch.equal(image, transform(load_image(path)))


@pytest.fixture
def as_rank(monkeypatch):
    """Makes this process one of several, by its rank."""
    return lambda rank: monkeypatch.setattr(dist, "get_rank", lambda: rank)


@pytest.mark.parametrize("length", [1, 5, 8, 9])
@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("whole", [False, True])
def test_shares(length, processes, whole, as_rank):
    shares = []
    for rank in range(processes):
        as_rank(rank)
        share = RankSampler(EpochSampler(length, shuffle=True, seed=0), processes, whole)
        share.set_epoch(3)
        shares.append(list(share))
        assert len(shares[-1]) == len(share)
    everything = sorted(pair for share in shares for pair in share)
    order = EpochSampler(length, shuffle=True, seed=0)
    order.set_epoch(3)
    if whole and length < processes:  # each sees all
        assert shares == [list(order)] * processes
        return
    if whole:
        assert everything == [(3, i) for i in range(length)]
    else:
        assert len({len(share) for share in shares}) == 1
        assert len(set(everything)) == len(everything) == length // processes * processes
    # Together, the first batches of all are the first batch of one process.
    first = {share[0] for share in shares if share}
    assert first <= set(list(order)[:processes])


@given(st.integers(1, 40), st.integers(1, 5), st.integers(2, 6))
def test_batches_of_shares_are_even(length, processes, size):
    """All processes have as many, none is too large or empty, and each sample is seen once."""
    assume(length >= processes)
    parts = []
    for rank in range(processes):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dist, "get_rank", lambda rank=rank: rank)
            share = RankSampler(EpochSampler(length, shuffle=False, seed=0), processes, True)
            parts.append(list(EvenBatches(share, size)))
            assert len(parts[-1]) == len(EvenBatches(share, size))
    assert len({len(part) for part in parts}) == 1
    batches = [batch for part in parts for batch in part]
    assert all(0 < len(batch) <= size for batch in batches)
    assert sorted(pair for batch in batches for pair in batch) == [(0, i) for i in range(length)]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_epoch_goes_on_at_a_batch_without_reading_those_before(workers, loaders, monkeypatch):
    loader = loaders(5, "--data.workers", workers).train
    loader.sampler.set_epoch(2)
    first, second = loader
    read = []
    monkeypatch.setattr(loader.dataset, "transform", Noting(loader.dataset.transform, read))
    loader.sampler.skip(5)
    (rest,) = loader
    assert len(read) == (5 if workers == "0" else 0)  # other processes note for themselves
    assert all(torch.equal(a, b) for a, b in zip(rest, second, strict=True))
    again, _ = loader  # the next iteration is whole
    assert all(torch.equal(a, b) for a, b in zip(again, first, strict=True))
    assert len(loader) == 2


class Noting:
    """A transform that notes that it was called."""

    def __init__(self, transform, calls: list) -> None:
        self.transform = transform
        self.calls = calls

    def __call__(self, image):
        self.calls.append(image.size)
        return self.transform(image)


@pytest.mark.parametrize("seen", [0, 1, 2])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_shares_skip_what_was_seen(seen, processes, monkeypatch):
    for rank in range(processes):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        share = RankSampler(EpochSampler(11, shuffle=True, seed=0), processes, False)
        whole = list(share)
        share.skip(seen)
        assert list(share) == whole[seen:]
        assert list(share) == whole


def test_too_few_images_for_the_devices(loaders):
    with pytest.raises(UserError, match="12 training images are too few for 13 devices"):
        loaders(4, processes=13)


def test_a_folder_is_needed():
    with pytest.raises(UsageError, match=r"data\.root is not set; .*--data.root DIR"):
        read_splits(Data())


# ---- targets


def soft_samples(photos) -> Samples:
    samples = read_splits(Data(root=str(photos)))["train"]
    targets = [[0.25, 0.75]] * len(samples)
    return Samples(samples.images, samples.labels, samples.classes, targets)


def test_soft_targets(photos):
    samples = soft_samples(photos)
    dataset = ImageDataset(samples, lambda _: torch.zeros(1), samples.targets)
    assert dataset[0][1].tolist() == [0.25, 0.75]
    labels = ImageDataset(soft_samples(photos), lambda _: torch.zeros(1))
    assert labels[0][1].item() == 0


def test_soft_targets_that_are_not_there(loaders):
    with pytest.raises(UsageError, match=r"data\.soft_targets is true, but this"):
        loaders(4, "--data.soft_targets", "true")


def test_classes_are_mapped_by_name(tmp_path):
    samples = Samples([tmp_path] * 3, [0, 1, 1], ["dog", "cat"])
    mapped = map_classes(samples, ["cat", "cow", "dog"])
    assert mapped.labels == [2, 0, 0]
    assert mapped.classes == ["cat", "cow", "dog"]
    with pytest.raises(UserError, match="no class 'cat'; it has cow, dog"):
        map_classes(samples, ["cow", "dog"])


def test_mixing():
    assert make_mixing(Data(), 0.1, 2) is None
    mixing = make_mixing(Data(mixup=0.8, cutmix=0.3, mix_prob=0.5, mix_mode="elem"), 0.1, 7)
    assert (mixing.mixup_alpha, mixing.cutmix_alpha, mixing.mix_prob) == (0.8, 0.3, 0.5)
    assert (mixing.mode, mixing.label_smoothing, mixing.num_classes) == ("elem", 0.1, 7)


# ---- transforms


def test_evaluation_is_a_resize_and_a_crop_in_the_middle(tmp_path):
    image = Image.new("RGB", (60, 40), "white")
    image.paste("black", (10, 0, 50, 40))
    preprocessing = preprocessing_of(
        Data(image_size=32, crop_pct=1.0, mean=(0.5,) * 3, std=(0.25,) * 3)
    )
    pixels = evaluation_transform(preprocessing)(image)
    assert pixels.shape == (3, 32, 32)
    # The middle 40 of 60 columns are black: (0 - 0.5) / 0.25.
    assert pixels[:, 5:-5, 5:-5].unique().tolist() == [-2]


@pytest.mark.parametrize(
    "changes",
    [{"std": [0, 0, 0]}, {"mean": 3}, {"input_size": "x"}, {"input_size": []}, {"crop_pct": None}],
)
def test_damaged_preprocessing(changes):
    with pytest.raises(UserError, match="the checkpoint: the preprocessing is damaged"):
        evaluation_transform({**preprocessing_of(Data()), **changes})
    with pytest.raises(UserError, match="the checkpoint: the preprocessing is damaged"):
        evaluation_transform({})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scale", (0.2, 0.3)),
        ("ratio", (0.5, 0.6)),
        ("hflip", 1.0),
        ("vflip", 1.0),
        ("color_jitter", 0.9),
        ("auto_augment", "rand-m9-mstd0.5-inc1"),
        ("random_erasing", 1.0),
        ("train_interpolation", "bilinear"),
        ("mean", (0.1, 0.2, 0.3)),
        ("std", (0.5, 0.5, 0.5)),
    ],
)
def test_every_key_of_the_augmentation_acts(key, value):
    """It changes what the same random numbers make of the same image."""
    plain = {"image_size": 32, "hflip": 0.0, "train_interpolation": "bicubic"}
    before = transformed(Data(**plain))
    assert torch.equal(before, transformed(Data(**plain)))
    assert not torch.equal(before, transformed(Data(**{**plain, key: value})))


def test_erasing_modes():
    constant, noise = (
        transformed(Data(random_erasing=1.0, erasing_mode=m)) for m in ("const", "pixel")
    )
    assert not torch.equal(constant, noise)
    assert (constant == 0).any()


def test_erasing_leaves_the_rest_and_draws_from_the_seeded_generators():
    plain = transformed(Data(erasing_mode="pixel"))
    erased, again = (transformed(Data(random_erasing=0.5, erasing_mode="pixel")) for _ in range(2))
    assert torch.equal(erased, again)
    changed = (erased != plain).flatten(1).float().mean(1)  # (8,), share of the values
    assert 0 < (changed > 0).sum() < 8
    assert changed.max() < 0.4  # a third at most, but for the rounding of its sides


def test_training_and_evaluation_standardize_alike():
    """Batches of pixels on the device, and images one by one: the same up to rounding."""
    data = Data(
        image_size=32,
        crop_pct=1.0,
        scale=(1.0, 1.0),
        ratio=(1.0, 1.0),
        hflip=0.0,
        std=(0.1, 0.2, 0.3),
    )
    image = load_noise().crop((0, 0, 32, 32))
    pixels = train_transform(data)(image)
    assert pixels.dtype == torch.uint8
    expected = evaluation_transform(preprocessing_of(data))(image)
    # float32 of values up to 255 rounds by 2e-5, over the smallest deviation of 255 x 0.1.
    torch.testing.assert_close(standardize(pixels[None], data)[0], expected, atol=1e-6, rtol=1e-6)


def load_noise() -> Image.Image:
    noise = torch.randint(0, 255, (50, 60, 3), generator=torch.Generator().manual_seed(0))
    return Image.fromarray(noise.byte().numpy())


def transformed(data: Data) -> torch.Tensor:
    """Eight random transforms of an image."""
    dataset = ImageDataset(Samples([None], [0], ["a", "b"]), train_transform(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spanets.data.unreadable.load_image", lambda _: load_noise())
        pixels = torch.stack([dataset[epoch, 0][0] for epoch in range(8)])
    seed_sample(0)
    return standardize(pixels, data)


@pytest.mark.parametrize("policy", ["rand-m10", "original", "augmix-m10"])
def test_posterized_to_no_bits(policy):
    """Pillow 13 refuses what timm's policies ask for at full strength."""
    transform = train_transform(Data(image_size=32, auto_augment=policy))
    (policies,) = (
        step
        for step in transform.transforms
        if hasattr(step, "ops" if "m10" in policy else "policy")
    )
    ops = getattr(policies, "ops", None) or [op for pair in policies.policy for op in pair]
    found = [op for op in ops if op.name.startswith("Posterize")]
    assert found
    for op in found:
        image = op.aug_fn(load_noise(), 0)
        assert image.getextrema() == ((0, 0),) * 3
        assert op.aug_fn(load_noise(), 8) is not None


@pytest.mark.parametrize("policy", ["nonsense", "rand-m9-q3", "random"])
def test_unknown_policies(policy):
    with pytest.raises(UsageError, match=f"data.auto_augment is '{policy}', must be a policy"):
        train_transform(Data(auto_augment=policy))


# ---- images that cannot be read


def test_a_corrupt_image_is_named(tmp_path):
    root = make_photos(tmp_path / "photos", cat=2, dog=2)
    bad = root / "cat/1.png"
    bad.write_bytes(b"no image")
    samples = Samples(sorted(root.rglob("*.png")), [0, 0, 1, 1], ["cat", "dog"])
    loader = evaluation_loader(samples, preprocessing_of(Data(image_size=32)), 2, workers=0)
    with pytest.raises(ImageError) as caught:
        list(loader)
    advice = r"; remove or replace it, or raise data\.max_unreadable"
    line = rf"{re.escape(str(bad))}: not an image, [^\n]*{advice}"
    assert re.fullmatch(line, str(caught.value))


def test_worker_errors():
    with pytest.raises(UserError, match=r"^one line$"), plain_worker_errors():
        raise UserError("one line")
    dead = "DataLoader worker (pid 7) is killed by signal: Killed. \nmore"
    line = r"died, perhaps for want of memory \(DataLoader .*\); lower data.workers or --workers$"
    with pytest.raises(UserError, match=line), plain_worker_errors():
        raise RuntimeError(dead)
    with pytest.raises(RuntimeError, match=r"^another$"), plain_worker_errors():
        raise RuntimeError("another")
