"""What a model costs."""

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import spanets
from spanets.errors import UsageError, nearest
from spanets.published import IMAGENET_TOP1
from spanets.weights import RELEASES


def count_parameters(model: nn.Module) -> int:
    """Returns the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_macs(name: str, size: int = 224, **arguments: object) -> int:
    """Counts the multiply-accumulates of one image: convolutions and matrix products.

    Runs on the meta device, so nothing is computed. Pointwise work is not counted, as usual in
    the field, and neither are FFTs: `spectral_method="fft"` looks cheaper than it is.

    Args:
        name: timm name.
        size: Image side, in pixels.
        **arguments: Of `timm.create_model`.
    """
    with torch.device("meta"):
        model = timm.create_model(name, **arguments).eval()
        images = torch.empty(1, 3, size, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    return counter.get_total_flops() // 2


def model_table(pattern: str = "") -> list[dict[str, object]]:
    """Returns a row for each model of this package that matches a shell pattern.

    Raises:
        UserError: no model matches; the nearest name is told.
    """
    names = spanets.list_models(pattern)
    if not names:
        known = spanets.list_models()
        raise UsageError(f"no model matches {pattern!r}{nearest(pattern, known)}")
    rows: list[dict[str, object]] = []
    for name in names:
        with torch.device("meta"):
            parameters = count_parameters(timm.create_model(name))
        top1 = IMAGENET_TOP1.get(name)
        rows.append(
            {
                "model": name,
                "parameters": parameters,
                "macs": count_macs(name),
                "top1_paper": top1,
                "weights": RELEASES[name.split("_")[0]] if top1 else None,
            }
        )
    return rows
