"""Compares exported files with the eager network."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spanets_runtime.errors import UsageError, first_line


def compare_shapes(
    model: nn.Module, run: Callable[[Tensor], list[Tensor]], images: Tensor, dynamic: bool
) -> dict[str, float]:
    """Returns relative differences from eager mode by shape; free sizes test three shapes."""
    _, channels, height, width = images.shape
    shapes = [tuple(images.shape)]
    if dynamic:
        step = getattr(model, "size_step", 0)
        smallest = (2 * step, 3 * step) if step else (64, 97)
        shapes += [(1, channels, *smallest), (3, channels, height + (step or 33), width)]
    generator = torch.Generator().manual_seed(1)
    differences = {}
    for shape in shapes:
        x = torch.randn(*shape, generator=generator)
        difference = _error(run(x), run_eager(model, x))
        differences["x".join(map(str, shape))] = float(f"{difference:.2g}")
    return differences


def compare_int8(
    model: nn.Module,
    run: Callable[[Tensor], list[Tensor]],
    batches: Sequence[NDArray[np.float32]],
    count: int,
) -> tuple[dict[str, float], float | None]:
    """Returns the largest difference, relative to the largest value, and the class agreement.

    The largest value is over all images, since an ambiguous image can have only small logits.

    Args:
        model: The eager network.
        run: The exported file.
        batches: Calibration images, (B, C, H, W) each.
        count: Number of images; those beyond fill up the last batch.
    """
    off, largest, agree = [], [], []
    for images in batches:
        x = torch.from_numpy(images)
        ours, theirs = run(x), run_eager(model, x)
        pairs = list(zip(ours, theirs, strict=True))
        off.append(torch.stack([(a - b).abs().max() for a, b in pairs]))
        largest.append(torch.stack([b.abs().max() for _, b in pairs]))
        if ours[0].ndim == 2:  # logits of classes
            agree.append(ours[0].argmax(1) == theirs[0].argmax(1))
    # One for each output; unlike Python's, torch's maximum keeps NaN.
    error = (torch.stack(off).amax(0) / torch.stack(largest).amax(0)).max().item()
    differences = {f"{count} calibration images": float(f"{error:.2g}")}
    agreement = torch.cat(agree)[:count].double().mean().item() if agree else None
    return differences, agreement


def _error(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    pairs = zip(ours, theirs, strict=True)
    errors = [(a - b).abs().max() / b.abs().max() for a, b in pairs]
    return torch.stack(errors).max().item()  # unlike Python's, torch's maximum keeps NaN


def run_eager(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Returns the outputs of a model.

    Raises:
        UsageError: it does not take images of this size.
    """
    try:
        with torch.inference_mode():
            outputs = model(images)
    # Models raise any kind of exception for unsupported sizes.
    except Exception as error:
        height, width = images.shape[2:]
        raise UsageError(
            f"the model cannot take images of {height}x{width} ({first_line(error)})"
        ) from error
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)
