"""Measures images decoded and augmented per second and core: our loaders and timm's.

    python benchmarks/data_throughput.py [--images 192] [--rounds 9]

The photographs are generated JPEGs of 500 x 375 pixels, some 84 kB, near ImageNet's average. All
loaders make batches of 32 with the settings of a recipe, in the main process, up to float32 input:
ours with `standardize`, timm's with its prefetcher (a batch at a time) or without it (an image at a
time). A round is one pass of each loader. The score is processor time, so that other work on the
machine matters little. Ratios are taken within a round.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import write
from PIL import Image
from timm.data import create_dataset, create_loader
from tqdm import trange

from spanets.classification.data import make_loaders
from spanets.classification.recipe import ClassificationRecipe
from spanets.data.image_level.transforms import mend_posterize, standardize
from spanets.data.sources.shard_writer import write_shards
from spanets.recipe import load_recipe

BATCH = 32
RECIPES = ("imagenet/spanet_small", "elpv")


def make_images(root: Path, count: int) -> None:
    """Writes photographs of two classes: smooth colour fields with some noise."""
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC))
        pixels = np.clip(smooth + rng.normal(0, 14, smooth.shape), 0, 255).astype(np.uint8)
        path = root / "train" / f"class{i % 2}" / f"{i:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=90)
    for name in ("class0", "class1"):
        (root / "val" / name).mkdir(parents=True)
        source = next((root / "train" / name).iterdir())
        (root / "val" / name / "0.jpg").write_bytes(source.read_bytes())


class Ours:
    """Our loader with the batch processing of the training step; each pass is a new epoch."""

    def __init__(self, recipe: ClassificationRecipe) -> None:
        self.loader = make_loaders(recipe, BATCH).train
        self.data = recipe.data
        self.epochs = itertools.count()

    def __iter__(self) -> Iterator[Any]:
        sampler: Any = self.loader.sampler
        sampler.set_epoch(
            next(self.epochs)
        )  # new augmentations; timm's samplers do this themselves
        for pixels, targets in self.loader:
            yield standardize(pixels, self.data), targets


def ours(recipe: str, root: Path, source: str) -> Iterable[Any]:
    words = ["--data.source", source, "--data.root", str(root), "--data.workers", "0"]
    chosen = load_recipe(recipe, [*words, "--data.soft_targets", "false"])
    assert isinstance(chosen, ClassificationRecipe)
    return Ours(chosen)


def timms(recipe: str, root: Path, prefetch: bool) -> Iterable[Any]:
    chosen = load_recipe(recipe)
    assert isinstance(chosen, ClassificationRecipe)
    data = chosen.data
    dataset = create_dataset("", str(root), split="train")
    loader = create_loader(
        dataset,
        input_size=(3, data.image_size, data.image_size),
        batch_size=BATCH,
        is_training=True,
        use_prefetcher=prefetch,
        scale=data.scale,
        ratio=data.ratio,
        hflip=data.hflip,
        vflip=data.vflip,
        color_jitter=data.color_jitter or None,
        auto_augment=data.auto_augment,
        re_prob=data.random_erasing,
        re_mode=data.erasing_mode,
        interpolation=data.train_interpolation,
        mean=data.mean,
        std=data.std,
        num_workers=0,
        persistent_workers=False,
        device=torch.device("cpu"),
    )
    dataset.transform = mend_posterize(dataset.transform)
    return loader


def pass_once(loader: Iterable[Any]) -> float:
    """Returns images per second of processor time."""
    begin = time.process_time()
    count = sum(len(images) for images, _ in loader)
    return count / (time.process_time() - begin)


def compare(recipe: str, folder: Path, shards: Path, rounds: int) -> dict[str, Any]:
    makers: dict[str, Callable[[], Iterable[Any]]] = {
        "timm": lambda: timms(recipe, folder, False),
        "timm, prefetcher": lambda: timms(recipe, folder, True),
        "folder": lambda: ours(recipe, folder, "folder"),
        "shards": lambda: ours(recipe, shards, "webdataset"),
    }
    loaders = {name: make() for name, make in makers.items()}
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for turn in trange(rounds, desc=recipe, disable=None, leave=False):
        for name, loader in list(loaders.items())[:: 1 if turn % 2 else -1]:
            rates[name].append(pass_once(loader))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    best = max(("timm", "timm, prefetcher"), key=lambda name: medians[name])
    relative = {
        name: statistics.median(a / b for a, b in zip(found, rates[best], strict=True))
        for name, found in rates.items()
    }
    return {
        "images_per_second_per_core": {name: round(rate, 1) for name, rate in medians.items()},
        "relative_to_timms_faster": {name: round(ratio, 3) for name, ratio in relative.items()},
        "rounds": {name: [round(rate, 1) for rate in found] for name, found in rates.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder, shards = Path(place, "folder"), Path(place, "shards")
        make_images(folder, arguments.images)
        write_shards(folder, shards, 4 * 10**6)
        sizes = [path.stat().st_size for path in (folder / "train").rglob("*.jpg")]
        found = {name: compare(name, folder, shards, arguments.rounds) for name in RECIPES}
    setting = {"images": len(sizes), "mean_bytes": round(statistics.mean(sizes)), "batch": BATCH}
    write("data_throughput", {"setting": setting, "recipes": found})


if __name__ == "__main__":
    main()
