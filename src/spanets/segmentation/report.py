"""Reports of segmentation: metrics as text, and a figure of example predictions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets.segmentation.masks.reading import MaskedImages
from spanets.segmentation.masks.values import IGNORED
from spanets.segmentation.predict import MaskPredictor
from spanets.sources import Source
from spanets.training.report import save_figure, subplots
from spanets_runtime.figures import name_label
from spanets_runtime.images import load_image
from spanets_runtime.masks import class_colours, overlay

# Number of example images, their longest side in pixels, and most classes in the legend.
SHOWN, SHOWN_SIDE, MAX_NAMES = 4, 480, 24


def describe_metrics(results: Mapping[str, Any]) -> str:
    """Returns the metrics of `evaluate` as readable lines."""
    lines = [f"{results['checkpoint']} on {results['data']} ({results['images']} images)"]
    lines += [f"  {results['tta']}"] if "tta" in results else []
    lines += [f"  {name:14} {_show(value)}" for name, value in results["metrics"].items()]
    lines += [f"  IoU of {name}: {_show(value)}" for name, value in results["iou"].items()]
    if (written := results.get("errors")) is not None:
        lines.append(f"  mistakes: {written['page']}; all images: {written['table']}")
    return "\n".join(lines)


def _show(value: float | None) -> str:
    return "undefined on these images" if value is None else f"{value:.4f}"


def plot_examples(source: Source, samples: MaskedImages, path: Path) -> None:
    """Draws example images, their masks and a checkpoint's predictions side by side."""
    predictor = MaskPredictor(source)
    count = min(SHOWN, len(samples))
    figure, axes = subplots(count, 3, (9, 0.4 + 3 * count))
    for i, row in enumerate(np.reshape(axes, (count, 3))):
        image = load_image(samples.images[i])
        truth = samples.load_mask(i, (image.height, image.width))
        guess = predictor.label(image)
        for cell, title, shown in zip(
            row,
            ("image", "mask", "prediction"),
            (
                image,
                draw_mask(image, truth, len(samples.classes)),
                overlay(image, guess, len(samples.classes)),
            ),
            strict=True,
        ):
            cell.imshow(_shrink(shown))
            cell.set_axis_off()
            cell.set_title(title if i == 0 else "")
    if len(samples.classes) <= MAX_NAMES:
        _add_legend(figure, samples.classes)
    save_figure(figure, path)


def draw_mask(image: Image.Image, truth: NDArray[np.uint8], classes: int) -> Image.Image:
    """Draws a mask over its image, with ignored pixels in black."""
    known = truth != IGNORED
    shown = np.array(overlay(image, np.where(known, truth, 0), classes))
    return Image.fromarray(np.where(known[..., None], shown, 0).astype(np.uint8))


def _shrink(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    return image


def _add_legend(figure: Any, classes: list[str]) -> None:
    from matplotlib.patches import Patch

    colours = class_colours(len(classes)) / 255
    patches = [Patch(color=c, label=name_label(n)) for c, n in zip(colours, classes, strict=True)]
    figure.legend(handles=patches, loc="outside lower center", ncols=6, frameon=False)
