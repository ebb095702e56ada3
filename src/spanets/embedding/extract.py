"""Computes the vectors of images: decoded by worker processes, one batch at a time."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spanets.data.image_level.bands import choose_bands
from spanets.data.loaders import ordered_loader, plain_worker_errors
from spanets.data.ranks import in_order
from spanets.data.sources.labelled import Listed, gather_labelled
from spanets.data.split_list import read_split
from spanets.embedding.network import EmbeddingNetwork, open_network
from spanets.embedding.vectors import (
    DIGEST_BYTES,
    UNLABELLED,
    Embeddings,
    Origin,
    to_unit,
)
from spanets.sources import Source
from spanets.version import __version__
from spanets_runtime.errors import UserError
from spanets_runtime.images import ImageError, describe_error, quiet_decoder
from spanets_runtime.preprocessing import Preprocessing

_NOT_FINITE = "the model's output is NaN or infinite; its weights may be broken"


def embed(
    source: Source | EmbeddingNetwork | str | Path,
    images: Listed | str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    layer: str | None = None,
    size: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    normalize: bool = False,
    device: str | None = None,
) -> Embeddings:
    """Computes one vector for each image.

    A vector does not depend on the other images, on their order, on the batch size or on the number
    of workers, but for the rounding of float32. The vectors are held once, 4 bytes a number.

    Args:
        source: A model, see `open_network`; an open one has its own layer and size.
        images: A folder or file, or several; see `gather_labelled`, whose result is taken too.
        layer: Name of a module whose output is pooled over space; None means timm's pooled
            features before the classifier.
        size: Side of the images in pixels; None means the model's.
        batch_size: Images at a time.
        workers: Processes that load images; 0 loads them in this one.
        normalize: Whether to scale the vectors to length 1.
        device: torch device; None selects a GPU if there is one.

    Returns:
        The embeddings. Unreadable images are left out, and `left_out` names each.

    Raises:
        UsageError: unknown model or layer, or a size that the model cannot take.
        UserError: unreadable model, a folder without images, or no readable image.
    """
    listed = images if isinstance(images, Listed) else _list(images)
    if not listed.images:
        raise UserError("no images to embed")
    network = source
    if not isinstance(network, EmbeddingNetwork):
        network = open_network(network, layer, size)
    if (pixels := network.preprocess.pixels) is not None and pixels.bands:
        kept, found = choose_bands(listed.images, pixels.bands, "the images")
        listed.keep(kept)
        listed.notes += found
    notes = [*network.notes, *_follow_run(network.source, listed)]
    digests, vectors, errors = compute_vectors(
        network, listed.images, batch_size, workers, normalize, device
    )
    kept = [i for i in range(len(listed.images)) if i not in errors]
    classes = sorted(set(listed.classes) - {""})
    numbers = {"": UNLABELLED, **{name: i for i, name in enumerate(classes)}}
    return Embeddings(
        paths=[os.fspath(listed.images[i]) for i in kept],
        vectors=vectors,
        labels=np.array([numbers[listed.classes[i]] for i in kept], dtype=np.int32),
        classes=classes,
        parts=[listed.parts[i] for i in kept],
        digests=digests,
        origin=origin_of(network, normalize),
        notes=(*listed.notes, *notes),
        left_out=tuple(errors.values()),
    )


def _list(images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Listed:
    return gather_labelled([images] if isinstance(images, str | os.PathLike) else images)


def origin_of(network: EmbeddingNetwork, normalize: bool) -> Origin:
    """Returns what the vectors of a network are made with."""
    plain = json.loads(json.dumps(network.preprocessing))
    return Origin(network.word, network.layer, network.digest, plain, normalize, __version__)


def compute_vectors(
    network: EmbeddingNetwork,
    images: Sequence[Path],
    batch_size: int = 32,
    workers: int = 0,
    normalize: bool = False,
    device: str | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.float32], dict[int, str]]:
    """Computes the vectors of image files; within `shared_batches`, together with other processes.

    Returns:
        Digests (N, 16) and vectors (N, D) of the N readable images, in order; and a message for
        each other image, by its index.

    Raises:
        UsageError: the layer's output cannot be pooled, or the model cannot take the size.
        UserError: none of the images is readable.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    network = network.to(place)
    collected = _Collected(images, normalize)
    loader = _loader(images, network.preprocess, batch_size, workers)

    def compute(batch: Batch) -> Vectors:
        readable, pixels, errors = batch
        return readable, network(pixels.to(place)).cpu() if readable else None, errors

    with plain_worker_errors(), quiet_decoder():
        for readable, vectors, errors in in_order(loader, compute, "embed"):
            collected.errors.update(errors)
            if vectors is not None:
                collected.add(readable, vectors.numpy())
    count, errors = collected.count, dict(sorted(collected.errors.items()))
    if not count or collected.vectors is None:
        first, *others = errors.values()
        more = f"; nor could {len(others)} others" if others else ""
        raise UserError(f"no image could be embedded: {first}{more}")
    return collected.digests[:count], collected.vectors[:count], errors


class _Collected:
    """Digests and vectors of the images so far, in memory that is allocated once."""

    def __init__(self, images: Sequence[Path], normalize: bool) -> None:
        self.images, self.normalize = images, normalize
        self.digests = np.zeros((len(images), DIGEST_BYTES), np.uint8)
        self.vectors: NDArray[np.float32] | None = None
        self.errors: dict[int, str] = {}
        self.count = 0

    def add(self, batch: list[tuple[int, bytes]], vectors: NDArray[np.float32]) -> None:
        """Adds the finite vectors of a batch; the others become errors."""
        if self.vectors is None:
            self.vectors = np.empty((len(self.images), vectors.shape[1]), np.float32)
        for (index, digest), vector in zip(batch, vectors, strict=True):
            if not np.isfinite(vector).all():
                self.errors[index] = f"{self.images[index]}: {_NOT_FINITE}"
                continue
            self.digests[self.count] = np.frombuffer(digest, np.uint8)
            self.vectors[self.count] = to_unit(vector[None])[0] if self.normalize else vector
            self.count += 1


Batch = tuple[list[tuple[int, bytes]], Tensor, dict[int, str]]
"""Indices and digests of the readable images, their pixels, and messages about the others."""

Vectors = tuple[list[tuple[int, bytes]], Tensor | None, dict[int, str]]
"""The same with vectors in place of pixels, None if no image of the batch is readable."""


def _loader(
    images: Sequence[Path], preprocess: Preprocessing, batch_size: int, workers: int
) -> DataLoader[Any]:
    dataset = _ImageFiles(images, preprocess)
    return ordered_loader(dataset, batch_size, workers, collate=_collate)


class _ImageFiles(Dataset[tuple[int, bytes, Any]]):
    """Preprocessed image files with the digest of their content; a message for unreadable ones."""

    def __init__(self, images: Sequence[Path], preprocess: Preprocessing) -> None:
        self.images = images
        self.preprocess = preprocess

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, bytes, Any]:
        index, path = key[1], self.images[key[1]]
        try:
            pixels = self.preprocess(self.preprocess.read(path))
            return index, self.preprocess.digest(path, DIGEST_BYTES), torch.from_numpy(pixels)
        except ImageError as error:
            return index, b"", describe_error(path, error)

    def inputs(self) -> Sequence[Path]:
        """Returns what the samples are made from; see `KnownInputs`."""
        return self.images


def _collate(samples: list[tuple[int, bytes, Any]]) -> Batch:
    readable = [sample for sample in samples if isinstance(sample[2], Tensor)]
    pixels = torch.stack([sample[2] for sample in readable]) if readable else torch.empty(0)
    errors = {index: what for index, _, what in samples if isinstance(what, str)}
    return [(index, digest) for index, digest, _ in readable], pixels, errors


def _follow_run(source: Source | None, listed: Listed) -> list[str]:
    """Takes the parts of a checkpoint's split list, so that no trained image is held out.

    Returns:
        A note if it is not known which images the checkpoint was trained on.
    """
    if source is None or not source.is_checkpoint or any(listed.parts):
        return []
    assert source.path is not None
    split = read_split(source.path.parent)
    if split is not None and split.parts and listed.follow(split, source.word):
        return []
    if not any(listed.classes):
        return []
    return [
        f"{source.word}: is a trained checkpoint; if it was trained on some of these images, "
        "accuracy of neighbours and probe is too good"
    ]
