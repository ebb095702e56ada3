"""What a model costs."""

from typing import Any

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import spanets
from spanets.published import IMAGENET_TOP1
from spanets.weights import RELEASES
from spanets_runtime.errors import UsageError, nearest


def count_parameters(model: nn.Module) -> int:
    """Returns the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_macs(model: nn.Module, size: int = 224) -> int:
    """Counts the multiply-accumulates of one image: convolutions and matrix products.

    Pointwise work is not counted, as usual in the field, and neither are FFTs:
    `spectral_method="fft"` looks cheaper than it is. On the meta device nothing is computed.

    Args:
        model: Takes images (B, 3, H, W).
        size: Image side, in pixels.
    """
    images = torch.empty(1, 3, size, size, device=next(model.parameters()).device)
    training = model.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(images)
    model.train(training)
    return counter.get_total_flops() // 2


def model_table(pattern: str = "") -> list[dict[str, Any]]:
    """Returns a row for each model of this package that matches a shell pattern.

    Raises:
        UsageError: no model matches; the nearest name is told.
    """
    names = spanets.list_models(pattern)
    if not names:
        known = spanets.list_models()
        hint = nearest(pattern.replace("*", ""), known) or f"; known are {', '.join(known)}"
        raise UsageError(f"no model matches {pattern!r}{hint}")
    return [_model_row(name) for name in tqdm(names, desc="count", disable=None, leave=False)]


def _model_row(name: str) -> dict[str, Any]:
    with torch.device("meta"):
        model = timm.create_model(name)
    top1 = IMAGENET_TOP1.get(name)
    return {
        "model": name,
        "parameters": count_parameters(model),
        "macs": count_macs(model),
        "top1_paper": top1,
        "weights": RELEASES[name.split("_")[0]] if top1 else None,
    }
