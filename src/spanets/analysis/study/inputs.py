"""Opens networks, and finds images and labels."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from spanets.backbones.factory import has_fixed_size
from spanets.backbones.published_classes import imagenet_classes
from spanets.data.sources.imagenet import wordnet_ids
from spanets.sources import Source, is_model_name, open_source
from spanets_runtime.errors import UserError
from spanets_runtime.images import ImageError, describe_error
from spanets_runtime.preprocessing import Preprocessing


def open_network(
    word: str,
    size: int | None = None,
    weights: str | None = None,
    pretrained: bool | None = False,
    needs_layers: bool = True,
) -> tuple[Source, Preprocessing]:
    """Opens a classifier from any source, with gradients off.

    Args:
        word: See `open_source`.
        size: Image side, in pixels; None means the model's own.
        weights: See `open_source`.
        pretrained: See `open_source`.
        needs_layers: Whether layers will be watched, which exported files do not show.

    Returns:
        The source, and its preprocessing for images of this size.

    Raises:
        UsageError: unknown name, a function that returns no network, or no layers to watch.
        UserError: unreadable checkpoint, or one of a detector or segmenter.
    """
    fixed = size is not None and is_model_name(word) and has_fixed_size(word)
    source = open_source(
        word, weights, model_args={"img_size": size} if fixed else None, pretrained=pretrained
    )
    if needs_layers:
        source.require_layers()
    source.require_image_level()
    values = {**source.info.preprocessing, "crop_mode": "center"}
    if size is not None:
        values["input_size"] = [*values["input_size"][:-2], size, size]
    source.network.requires_grad_(False)
    return source, Preprocessing.parse(values, word)


def class_labels(
    root: Path, paths: Sequence[Path], classes: Sequence[str] | None
) -> list[int] | None:
    """Returns the class of each image, from the class folder that contains it at any depth.

    Folders of ImageNet's classes may have WordNet ids. Returns None without classes, or if an image
    is outside the class folders.
    """
    if classes is None:
        return None
    number = {name: i for i, name in enumerate(classes)}
    if tuple(classes) == imagenet_classes():
        number |= {name: i for i, name in enumerate(wordnet_ids())}
    labels = []
    for path in paths:
        found = [number[name] for name in path.relative_to(root).parts[:-1] if name in number]
        if not found:
            return None
        labels.append(found[-1])
    return labels


def batches(
    paths: Sequence[Path],
    preprocess: Preprocessing,
    batch_size: int,
    first: int = 0,
    unreadable: dict[Path, str] | None = None,
) -> Iterator[tuple[list[int], Tensor]]:
    """Yields preprocessed images (B, C, S, S) with their indices; skips unreadable images.

    Args:
        paths: Image paths.
        preprocess: Transform from an image to the network's input.
        batch_size: Images at a time.
        first: Index of the first image.
        unreadable: Collects the reason for each skipped image.

    Raises:
        UserError: no image is readable.
    """
    numbers: list[int] = []
    kept: list[Tensor] = []
    seen = first > 0
    for number in range(first, len(paths)):
        try:
            kept.append(torch.from_numpy(preprocess(preprocess.read(paths[number]))))
        except ImageError as error:
            if unreadable is not None:
                unreadable[paths[number]] = describe_error(paths[number], error)
            continue
        numbers.append(number)
        seen = True
        if len(kept) == batch_size:
            yield numbers, torch.stack(kept)
            numbers, kept = [], []
    if kept:
        yield numbers, torch.stack(kept)
    if not seen:
        raise UserError(f"{paths[0].parent}: a folder without readable images")
