"""Checks that batch norm sees more than one value a channel: one value has no variance."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spanets.backbones.modes import evaluating
from spanets_runtime.errors import UsageError


def refuse_single_values(model: nn.Module, image: Tensor, batch: int) -> None:
    """Refuses a batch in which a batch norm of the model sees one value a channel.

    Args:
        model: The model. Batch norms in evaluation mode, which are frozen, are skipped; the mode
            of every module is restored.
        image: One training image, (1, 3, H, W).
        batch: Number of images in the smallest batch on one device.

    Raises:
        UsageError: a layer sees one value a channel; the message names it.
    """
    if batch > 1:
        return
    values: dict[str, int] = {}
    hooks = [
        layer.register_forward_pre_hook(_count_values(values, name))
        for name, layer in model.named_modules()
        if isinstance(layer, _BatchNorm) and layer.training  # the only class that all share
    ]
    try:
        with evaluating(model), torch.no_grad():
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    if single := [name for name, count in values.items() if count == 1]:
        raise UsageError(
            "the batch on one device is one image, so the model's batch norm "
            f"({single[0]}) sees one value a channel, which has no variance; raise "
            "optim.batch_size or data.image_size, or add images"
        )


def _count_values(values: dict[str, int], name: str) -> Any:
    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values[name] = inputs[0].numel() // inputs[0].shape[1]

    return note
