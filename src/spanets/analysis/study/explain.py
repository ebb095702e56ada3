"""Shows where a classifier looks: SPAM contexts and Score-CAM, drawn over the images."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from spanets.analysis.capture import capture, find_modules, find_stages
from spanets.data.sources.imagenet import has_imagenet_names, name_classes
from spanets.mixers import SpectralContext
from spanets.sources import Source, as_source
from spanets.tasks import load_task
from spanets_runtime.arrays import to_picture
from spanets_runtime.errors import UsageError, UserError, nearest, require
from spanets_runtime.figures import name_label, render
from spanets_runtime.images import ImageError, describe_error
from spanets_runtime.listing import ImageSource
from spanets_runtime.pictures import check_outputs, save_picture
from spanets_runtime.preprocessing import Preprocessing
from spanets_runtime.progress import progress

WHAT = ("context", "score-cam")

Evidence = Callable[[Tensor], Tensor]
"""Function from outputs (B, outputs) to the numbers that Score-CAM compares."""

MAX_ROWS = 100
"""Largest number of images on a sheet; matplotlib's limit is 65,535 pixels per side."""


def context_maps(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Returns the context of every SPAM, its magnitude averaged over channels (SPANet, Figure 4).

    Args:
        model: A network with SPAMs.
        images: Preprocessed images (B, C, H, W).

    Returns:
        Maps (B, h, w) by module, in the order of the network.

    Raises:
        UserError: the network has no SPAM.
    """
    names = [name for name, m in model.named_modules() if isinstance(m, SpectralContext)]
    if not names:
        raise UserError(f"{type(model).__name__} has no SPAM, so it has no contexts to show")
    maps = capture(model, images, names, layout="nchw")
    return {name: x.abs().mean(1) for name, x in maps.items()}


@torch.no_grad()
def score_cam(
    model: nn.Module,
    images: Tensor,
    site: str,
    targets: Sequence[int] | None = None,
    batch_size: int = 32,
    evidence: Evidence = lambda logits: logits.float().softmax(1),
) -> tuple[Tensor, list[int]]:
    """Returns the evidence for a class by Score-CAM (Wang et al., CVPR Workshops 2020).

    Each channel of a module's map, resized to the image and scaled to 0..1, masks the image. The
    channel's weight is the class's probability for the masked image, as a softmax over channels.

    Args:
        model: Network from images to logits, in evaluation mode.
        images: Preprocessed images (B, C, H, W).
        site: Name of the module whose maps are used, such as "stages.3".
        targets: Class for each image; None means the most likely one.
        batch_size: Masked images at a time.
        evidence: See `Evidence`; a classifier's are its probabilities.

    Returns:
        Maps (B, H, W) from 0 to 1, and the class of each map.
    """
    names = find_modules(model, site)
    if len(names) > 1:
        raise UsageError(f"{site!r} matches {len(names)} modules, such as {names[0]}; name one")
    (activations,) = capture(model, images, names).values()
    chosen = model(images).argmax(1).tolist() if targets is None else list(targets)
    maps = []
    for image, activation, target in zip(images, activations, chosen, strict=True):
        stretched = F.interpolate(activation[None].float(), image.shape[-2:], mode="bilinear")[0]
        masks = _to_unit(stretched)  # C H W
        scores = [
            evidence(model(image * part[:, None].to(image)))[:, target]
            for part in masks.split(batch_size)
        ]
        weights = torch.cat(scores).softmax(0)
        maps.append(_to_unit((weights[:, None, None] * stretched).sum(0).relu()[None])[0])
    return torch.stack(maps), chosen


def _to_unit(maps: Tensor) -> Tensor:
    """Scales each map (C, H, W) to 0..1; constant maps become 0."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp(min=torch.finfo(maps.dtype).tiny)


@dataclass(frozen=True)
class Explained:
    """One image with its maps.

    Attributes:
        image: Path of the image.
        pixels: Network's input as pixels in 0..1: (H, W, 3).
        label: Explained class with its probability; without Score-CAM the most likely class.
        maps: Maps (H, W) in 0..1, by title.
    """

    image: str
    pixels: NDArray[Any]
    label: str
    maps: dict[str, NDArray[Any]]


def explain(
    checkpoint: Source | str | Path,
    images: Sequence[ImageSource],
    out: str | Path,
    what: Sequence[str] | None = None,
    target: str | None = None,
    site: str | None = None,
) -> tuple[Path, list[str]]:
    """Explains a checkpoint's predictions; writes one sheet for all images.

    Args:
        checkpoint: Checkpoint of `spanets train`, a model's name with published weights, or an
            opened source.
        images: Image paths; unreadable images are skipped and reported.
        out: Folder for `explained.png`.
        what: Kinds from `WHAT`; None means Score-CAM and, for a SPANet, contexts.
        target: Class for Score-CAM, of ImageNet's also a WordNet id or a word for it; None means
            the most likely one of each image.
        site: See `score_cam`; None means the last stage.

    Returns:
        The sheet's path, and a line for each unreadable image.

    Raises:
        UsageError: unknown class, module or kind.
        UserError: unreadable checkpoint, no readable image, or a file that this package did not
            write at the sheet's path.
    """
    require("matplotlib", "analysis")
    if unknown := set(what or ()) - set(WHAT):
        raise UsageError(f"--what is {min(unknown)!r}, allowed: {', '.join(WHAT)}")
    source = as_source(checkpoint)
    source.require_layers()
    source.require_image_level()
    source.require_classes("a checkpoint")
    images = list(source.preprocess.choose(images))
    if len(images) > MAX_ROWS:
        raise UsageError(f"{len(images)} images are too many for a sheet, at most {MAX_ROWS}")
    model, info = source.network, source.info
    if what is None:
        has_context = any(isinstance(module, SpectralContext) for module in model.modules())
        what = WHAT if has_context else ("score-cam",)
    if target is not None and has_imagenet_names(info.classes):
        ((target,), _) = name_classes([target])
    index = None if target is None or target not in info.classes else info.classes.index(target)
    if target is not None and index is None:
        hint = nearest(target, info.classes) or f"; known are {', '.join(info.classes[:20])}"
        raise UsageError(f"--target: unknown class {target!r}{hint}")
    if "score-cam" in what:
        site = choose_site(model, site)
    preprocess = source.preprocess
    sheet = Path(out, "explained.png")
    check_outputs(images, [sheet])
    rows, errors = [], []
    for path in progress(images, "explain"):
        try:
            given = preprocess(preprocess.read(path))
        except ImageError as error:
            errors.append(describe_error(path, error))
            continue
        try:
            rows.append(_explain_one(source, preprocess, str(path), given, what, index, site))
        except ValueError as error:  # the module's output is not a map
            raise UserError(f"{error}; name another module with --site") from error
    if not rows:
        raise UserError(errors[0] if errors else "no images")
    with Image.open(io.BytesIO(_draw(rows))) as picture:
        save_picture(picture, sheet)
    return sheet, errors


def choose_site(model: nn.Module, site: str | None = None) -> str:
    """Returns the module that Score-CAM looks at: the named one, or else the last stage.

    Raises:
        UsageError: no module has this name, or several fit; or the network names no stages.
    """
    if site is None:
        try:
            return find_stages(model)[-1]
        except UserError as error:
            last = [name for name, _ in model.named_modules() if name][-3:]
            raise UsageError(
                f"{error}; name a module with --site, such as {' or '.join(last)}"
            ) from None
    try:
        names = find_modules(model, site)
    except UsageError as error:
        raise UsageError(f"--site: {error}") from None
    if len(names) > 1:
        raise UsageError(
            f"--site {site} matches {len(names)} modules, such as {names[0]}; name one"
        )
    return names[0]


def _explain_one(
    source: Source,
    preprocess: Preprocessing,
    path: str,
    given: NDArray[Any],
    what: Sequence[str],
    target: int | None,
    site: str | None,
) -> Explained:
    batch, model, task = torch.from_numpy(given)[None], source.network, load_task(source.info.task)
    with torch.no_grad():
        outputs = model(batch)
    shown = task.most_telling(source.info, outputs[0]) if target is None else target
    said = task.interpret(source.info, outputs)[0, shown]
    maps: dict[str, NDArray[Any]] = {}
    if "context" in what:
        contexts = context_maps(model, batch)
        for name in last_of_each_stage(list(contexts)):
            maps[f"context, {name.split('.token_mixer')[0]}"] = fit_to_images(contexts[name], batch)
    if "score-cam" in what:
        assert site is not None
        found, _ = score_cam(model, batch, site, [shown], evidence=task.evidence)
        maps[f"Score-CAM, {site}"] = found[0].numpy()
    pixels = pixels_of(preprocess, given)
    return Explained(path, pixels, f"{source.info.classes[shown]} {said:.2f}", maps)


def pixels_of(preprocess: Preprocessing, given: NDArray[Any]) -> NDArray[Any]:
    """Returns a network's input (C, H, W) as a picture (H, W, 3), from 0 to 1."""
    mean, std = (np.array(v)[:, None, None] for v in (preprocess.mean, preprocess.std))
    pixels = (given * std + mean).transpose(1, 2, 0)
    if preprocess.pixels is not None:
        pixels = np.asarray(to_picture(pixels)) / 255
    return np.clip(pixels, 0, 1)


def last_of_each_stage(names: Sequence[str]) -> list[str]:
    """Returns the last of the modules of each stage, from names such as "stages.0.blocks.1.x"."""
    last = {name.split(".blocks.")[0]: name for name in names}
    return list(last.values())


def fit_to_images(maps: Tensor, images: Tensor) -> NDArray[Any]:
    """Returns a map (1, h, w), resized to the image and scaled to 0..1."""
    stretched = F.interpolate(maps[None].float(), images.shape[-2:], mode="bilinear")[0]
    return _to_unit(stretched)[0].numpy()


def _draw(rows: Sequence[Explained]) -> bytes:
    from matplotlib.figure import Figure

    columns = 1 + len(rows[0].maps)
    figure = Figure(figsize=(2.2 * columns, 2.5 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes, row in zip(grid, rows, strict=True):
        axes[0].imshow(row.pixels)
        axes[0].set_title(
            f"{name_label(Path(row.image).name)}\n{name_label(row.label)}", fontsize=8
        )
        for cell, (title, values) in zip(axes[1:], row.maps.items(), strict=True):
            cell.imshow(
                Image.fromarray((row.pixels * 255).astype(np.uint8)).convert("L"), cmap="gray"
            )
            cell.imshow(values, cmap="jet", alpha=0.5, vmin=0, vmax=1)
            cell.set_title(title, fontsize=8)
    for axes in grid.flat:
        axes.set_axis_off()
    return render(figure, "png", dpi=150)
