"""Operations grow with the size and the number of images as the equations say.

Counted on the meta device, where filters are matrix products, so that no clock is involved.
"""

from collections import Counter

import pytest
import torch
from networks import shallow, structures
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spanets.mixers import Attention, SpectralFilter

SIDE = 128


def counted(model: nn.Module, side: int, batch: int = 1) -> Counter[str]:
    """Operations by kind: convolutions and other products."""
    images = torch.empty(batch, 3, side, side, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images)
    found: Counter[str] = Counter()
    for operator, count in counter.get_flop_counts()["Global"].items():
        kind = "convolution" if "convolution" in str(operator) else "product"
        found[kind] += count
    return found


def steepest(model: nn.Module) -> int:
    """By which factor products may grow when both sides double.

    SPANet's filters are products with 5 or 13 rows; SPANetV2's with as many as a map's side;
    attention compares all pixels with all.
    """
    factors = {Attention: 16, SpectralFilter: 8}
    return max(factors.get(kind, 4) for part in model.modules() for kind in type(part).mro())


@pytest.mark.parametrize("name_", structures())
def test_operations_against_pixels_and_images(name_: str) -> None:
    model = shallow(name_, num_classes=0, device="meta")  # a classifier sees one vector an image
    one, larger, two, three = (
        counted(model, *given) for given in ((SIDE,), (2 * SIDE,), (SIDE, 2), (SIDE, 3))
    )
    assert larger["convolution"] == 4 * one["convolution"] > 0
    assert 0 < larger["product"] <= steepest(model) * one["product"]
    assert two["convolution"] == 2 * one["convolution"]
    # SPANetV2's gains are made once for all images.
    assert three["product"] - two["product"] == two["product"] - one["product"] > 0
