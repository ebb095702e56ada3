"""The models and images of one explorer: opened once, shared by its users, never changed."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from spanets.analysis.study.explain import pixels_of
from spanets.explore.twins import Twins
from spanets.sources import Source
from spanets.tasks import load_task
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.images import ImageError, load_image
from spanets_runtime.listing import Listing, images_below

MOST_PIXELS = 2**26
"""Largest image of the explorer, in pixels: a photograph of 64 megapixels."""

MOST_REMEMBERED = 16

TOP = 5

T = TypeVar("T")
Track = Callable[[Iterable[Any], int, str], Iterable[Any]]
"""Shows the progress of a loop: function of an iterable, its length and a title."""

_TRACK: ContextVar[Track | None] = ContextVar("_TRACK", default=None)


def track_with(track: Track) -> None:
    """Sets how the progress of long panels is shown, for the request of this context."""
    _TRACK.set(track)


def tracked(items: Iterable[T], total: int, title: str) -> Iterable[T]:
    """Shows the progress of a loop: with a bar on a terminal, unless `track_with` set another."""
    track = _TRACK.get()
    if track is not None:
        return track(items, total, title)
    return tqdm(items, desc=title, total=total, disable=None, leave=False)


@dataclass(frozen=True)
class Settings:
    """What a user sets in the page or on the command line.

    Attributes:
        image: Path of the image.
        low: Lower edge of the band that is kept, as a fraction of Nyquist; 0 keeps all below.
        high: Upper edge of the band.
        side: Side of masks and gains, in bins.
        stage: Stage whose λ is set, such as "stages.0", or "all"; "" means the first.
        balance: λ of each of its heads; () means the network's own.
        min_score: Smallest score of an object, or probability of a pixel, to show.
        limit: Largest number of images of the folder.
    """

    image: str = ""
    low: float = 0.0
    high: float = 1.5
    side: int = 14
    stage: str = ""
    balance: tuple[float, ...] = ()
    min_score: float = 0.5
    limit: int = 200


@dataclass(frozen=True)
class Prepared:
    """An image for a network.

    Attributes:
        batch: The network's input (1, C, S, S).
        pixels: The same as a picture (S, S, 3), from 0 to 1.
    """

    batch: Tensor
    pixels: NDArray[Any]


@dataclass(frozen=True, eq=False)  # equal to itself alone, so that it can be a key
class Model:
    """An opened model.

    Attributes:
        source: See `open_source`.
    """

    source: Source

    @cached_property
    def twins(self) -> Twins:
        """Copies of the network for requests that watch or change it."""
        return Twins(self.source.network, is_copied=not self.source.exported)

    @property
    def is_image_level(self) -> bool:
        """Whether it maps each image to one row of outputs."""
        return bool(load_task(self.source.info.task).is_image_level)

    @property
    def labels(self) -> list[str]:
        """Names of the outputs; "output 3" for those of a network without classes."""
        return self.source.info.classes

    def name_outputs(self, values: Tensor, count: int = TOP) -> dict[str, float]:
        """Returns the largest of some values (outputs,), by label."""
        order = values.argsort(descending=True, stable=True)[:count].tolist()
        names = self.labels or [f"output {i}" for i in range(len(values))]
        return {names[i]: values[i].item() for i in order}

    def interpret(self, outputs: Tensor) -> Tensor:
        """Returns what outputs (B, outputs) say; see `Task.interpret`."""
        return load_task(self.source.info.task).interpret(self.source.info, outputs)

    def answer(self, outputs: Tensor) -> dict[str, float]:
        """Returns the largest values of an image's outputs (1, outputs), by label."""
        return self.name_outputs(self.interpret(outputs)[0])


@dataclass
class Workbench:
    """The models and images of one explorer.

    Attributes:
        sources: Opened models, by the word that the user gave.
        folder: Folder of images, or None.
        opening: Options of the command line that chose the models' weights.
    """

    sources: dict[str, Source]
    folder: Path | None = None
    opening: tuple[str, ...] = ()
    models: dict[str, Model] = field(init=False)

    def __post_init__(self) -> None:
        self.models = {word: Model(source) for word, source in self.sources.items()}
        self._prepared = lru_cache(maxsize=16)(self._prepare)
        self._remembered: dict[Any, Any] = {}
        self._lock = Lock()

    @cached_property
    def listing(self) -> Listing:
        """The images of the folder.

        Raises:
            UserError: there is no folder, or it has no images.
        """
        if self.folder is None:
            raise UserError("no folder of images was given; start with --images DIR")
        return images_below(self.folder)

    def image_level(self, word: str) -> Model:
        """Returns a model of one row of outputs an image.

        Raises:
            UserError: it is unknown, or a detector or segmenter.
        """
        model = self.model(word)
        model.source.require_image_level()
        return model

    def model(self, word: str) -> Model:
        """Returns a model by its word.

        Raises:
            UsageError: the explorer has no such model.
        """
        if word not in self.models:
            raise UsageError(f"model is {word!r}, allowed: {', '.join(self.models)}")
        return self.models[word]

    def prepare(self, word: str, path: str) -> Prepared:
        """Decodes and preprocesses an image for a model; keeps the last few.

        Raises:
            ImageError: the image is missing, unreadable or too large.
        """
        return self._prepared(word, path, stamp_of(path))

    def remember(self, key: tuple[str, ...], compute: Callable[[], T]) -> T:
        """Returns what was computed for a key; keeps the last few, for sliders.

        Args:
            key: What it is, the model, the image's path, and more.
            compute: Computes it.
        """
        key = (*key, *map(str, stamp_of(key[2])))
        with self._lock:
            if key in self._remembered:
                return cast(T, self._remembered[key])
        found = compute()
        with self._lock:
            self._remembered[key] = found
            if len(self._remembered) > MOST_REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
        return found

    def _prepare(self, word: str, path: str, _: tuple[int, int]) -> Prepared:
        preprocess = self.models[word].source.preprocess
        given = preprocess(decode(preprocess, path))
        return Prepared(torch.from_numpy(given)[None], pixels_of(preprocess, given))


def decode(preprocess: Any, path: str) -> Any:
    """Decodes an image for a transform.

    Raises:
        ImageError: see `load_image`; more pixels than `MOST_PIXELS`.
    """
    if getattr(preprocess, "pixels", None) is None:
        return load_image(path, MOST_PIXELS)
    return preprocess.read(path)


def decode_picture(bench: Workbench, path: str, side: int = 400) -> Image.Image:
    """Decodes an image into a small picture for people.

    Raises:
        ImageError: see `decode`.
    """
    stamp_of(path)
    preprocess = next(iter(bench.models.values())).source.preprocess
    is_plain = getattr(preprocess, "pixels", None) is None
    picture = load_image(path, MOST_PIXELS) if is_plain else preprocess.view(path)
    picture.thumbnail((side, side))
    return picture


def stamp_of(path: str) -> tuple[int, int]:
    """Returns size and time of a file, so that one that changes is read again."""
    if not path:
        raise ImageError("no image; upload one, or choose a sample")
    try:
        found = os.stat(path)
    except OSError as error:
        raise ImageError(f"{Path(path).name}: {error.strerror}") from error
    return found.st_size, found.st_mtime_ns


def run(network: nn.Module, batch: Tensor) -> Tensor:
    """Returns the outputs (1, outputs) of a network.

    Raises:
        UserError: they are not finite.
    """
    outputs: Tensor = network(batch)
    if not torch.isfinite(outputs).all():
        raise UserError("the network's outputs are not finite; its weights may be broken")
    return outputs


def write_samples(folder: Path) -> list[Path]:
    """Writes pictures to begin with: rings of rising frequency, and shapes under noise.

    Returns:
        Their paths.
    """
    side = np.linspace(-1, 1, 256)
    distance = np.hypot(side[:, None], side[None, :])
    rings = 0.5 + 0.5 * np.cos(64 * np.pi * distance**2)
    noise = np.random.default_rng(0).normal(0.5, 0.12, (256, 256, 3))
    noise[(distance < 0.55)] += np.array([0.3, 0.05, -0.2])
    noise[150:230, 30:120] += np.array([-0.2, 0.05, 0.35])
    pictures: Sequence[tuple[str, NDArray[Any]]] = (
        ("shapes", noise),
        ("rings", np.repeat(rings[..., None], 3, 2)),
    )
    paths = []
    for name, pixels in pictures:
        paths.append(folder / f"{name}.png")
        Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8)).save(paths[-1])
    return paths
