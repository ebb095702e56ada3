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
    images: Sequence[NDArray[np.float32]],
) -> tuple[dict[str, float], float | None]:
    """Returns the largest difference, relative to the largest value, and the class agreement.

    The largest value is over all images, since an ambiguous image can have only small logits.
    """
    off, largest, same, classes = [], [], 0, False
    for image in images:
        x = torch.from_numpy(image)[None]
        ours, theirs = run(x), run_eager(model, x)
        pairs = list(zip(ours, theirs, strict=True))
        off.append(torch.stack([(a - b).abs().max() for a, b in pairs]))
        largest.append(torch.stack([b.abs().max() for _, b in pairs]))
        classes = ours[0].ndim == 2
        same += int(classes and ours[0].argmax() == theirs[0].argmax())
    # One for each output; unlike Python's, torch's maximum keeps NaN.
    error = (torch.stack(off).amax(0) / torch.stack(largest).amax(0)).max().item()
    differences = {f"{len(images)} calibration images": float(f"{error:.2g}")}
    return differences, same / len(images) if classes else None


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
