"""The class names of published weights: those of ImageNet, as timm knows them."""

from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import nn

IMAGENET = "imagenet-1k"


def published_classes(model: nn.Module) -> list[str]:
    """Returns the class names of a model with published weights; [] if they are not known.

    They are the names in its timm configuration, or else ImageNet's (1K, 12K, 21K, 22K), by the
    number of classes. A model whose classifier was replaced has no known classes.
    """
    config: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    count = getattr(model, "num_classes", 0)
    if not count or count != config.get("num_classes"):
        return []
    if (names := config.get("label_names")) and len(names) == count:
        described = config.get("label_descriptions") or {}
        return _distinct(list(names), [str(described.get(name, name)) for name in names])
    subset = infer_imagenet_subset({"num_classes": count})
    return [] if subset is None else list(imagenet_classes(subset))


@cache
def imagenet_classes(subset: str = IMAGENET) -> tuple[str, ...]:
    """Returns the class names of ImageNet, or of a larger set that timm knows.

    They look like "goldfish, Carassius auratus". ImageNet calls two kinds of things "crane". Such
    names get their WordNet id, because each class needs a name of its own.
    """
    info = ImageNetInfo(subset)
    return tuple(_distinct(info.label_names(), list(info.label_descriptions())))


def _distinct(ids: list[str], names: list[str]) -> list[str]:
    """Adds the id to each name that several classes have."""
    counts = Counter(names)
    return [
        f"{name} ({number})" if counts[name] > 1 else name
        for number, name in zip(ids, names, strict=True)
    ]
