"""The scale of the numbers: networks estimate standardized ones, users see those of their data."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spanets.checkpoint import ModelInfo
from spanets.weights.classifiers import classifier_names
from spanets_runtime.errors import UserError


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of each number over the training images."""

    mean: list[float]
    std: list[float]

    @classmethod
    def of(cls, values: NDArray[np.float64], names: list[str], origin: str | None) -> "Scale":
        """Measures the numbers (images, names) of the training images.

        Raises:
            UserError: a number is the same for all images.
        """
        std = values.std(0)
        if (constant := np.flatnonzero(std <= 1e-12 * np.abs(values).max(0))).size:
            name = names[int(constant[0])]
            raise UserError(f"{origin}: {name} is the same for all training images")
        return cls(values.mean(0).tolist(), std.tolist())

    @classmethod
    def read(cls, info: ModelInfo, origin: str) -> "Scale":
        """Returns the scale in a model's metadata; without one, the outputs have the data's units.

        Raises:
            UserError: it is damaged.
        """
        return cls.parse(info.head, len(info.classes), origin)

    @classmethod
    def parse(cls, head: Mapping[str, Any], count: int, origin: str) -> "Scale":
        """Returns the scale in `ModelInfo.head`; see `read`."""
        if not head:
            return cls([0.0] * count, [1.0] * count)
        lists: list[Any] = [head.get("mean"), head.get("std")]
        for found in lists:
            is_list = isinstance(found, list | tuple) and len(found) == count
            if not is_list or not all(isinstance(x, float) and math.isfinite(x) for x in found):
                raise UserError(f"{origin}: damaged, its scale is {lists}")
        if not all(x > 0 for x in lists[1]):
            raise UserError(f"{origin}: damaged, its scale is {lists}")
        return cls(list(lists[0]), list(lists[1]))

    def to_head(self) -> dict[str, Any]:
        """Returns plain values for `ModelInfo.head`."""
        return {"mean": self.mean, "std": self.std}

    def standardize(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Returns standardized numbers (images, names)."""
        return ((values - np.array(self.mean)) / np.array(self.std)).astype(np.float32)

    def restore(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Returns numbers (images, names) in the data's units."""
        return values * np.array(self.std) + np.array(self.mean)


class Scaled(nn.Module):
    """A network whose outputs have the data's units."""

    output_names = ("values",)

    def __init__(self, model: nn.Module, scale: Scale) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(scale.mean))
        self.register_buffer("std", torch.tensor(scale.std))

    def forward(self, images: Tensor) -> Tensor:
        """Returns numbers (B, names)."""
        return self.model(images) * self.std + self.mean


def fold_scale(model: nn.Module, scale: Scale, origin: str) -> nn.Module:
    """Returns a copy of a network whose last layer has the data's units.

    Raises:
        UserError: the last layer is not linear.
    """
    folded = copy.deepcopy(model)
    mean, std = torch.tensor(scale.mean), torch.tensor(scale.std)
    for name in classifier_names(folded):
        layer = folded.get_submodule(name)
        if not isinstance(layer, nn.Linear | nn.Conv2d) or layer.bias is None:
            raise UserError(f"{origin}: cannot be published, its layer {name} is no linear one")
        with torch.no_grad():
            layer.weight.mul_(std.view(-1, *[1] * (layer.weight.ndim - 1)))
            layer.bias.mul_(std).add_(mean)
    return folded
