"""`spanets analyze`: measures models on a folder of images; writes figures and numbers."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spanets.analysis.study.figures import draw
from spanets.analysis.study.inputs import class_labels, open_network
from spanets.analysis.study.measure import MEASUREMENTS, Options, Subject
from spanets.analysis.study.record import Record, digest, file_name, identity
from spanets.backbones.factory import has_published_weights
from spanets.sources import describe_weights, is_model_name
from spanets.tasks import DEFAULT_TASK
from spanets_runtime.errors import UsageError, UserError, nearest
from spanets_runtime.images import describe_unreadable
from spanets_runtime.listing import images_below, spread_evenly

WHAT = tuple(MEASUREMENTS)

__all__ = ["WHAT", "Options", "analyze"]


def analyze(
    models: Sequence[str],
    images: str | Path,
    out: str | Path,
    what: Sequence[str] = ("amplitude",),
    options: Options | None = None,
    size: int | None = None,
    limit: int | None = None,
    weights: str | None = None,
    pretrained: bool | None = False,
) -> dict[str, Any]:
    """Measures models on a folder of images; writes figures, and numbers as JSON.

    It reuses measurements in `out` that have the same settings, and resumes interrupted sensitivity
    and band measurements, except of functions and hub addresses, whose weights may have changed. It
    counts skipped files and unreadable images on standard error.

    Args:
        models: timm names, checkpoints of `spanets train`, or "module:function", a function
            without arguments that returns a network.
        images: Folder of images, searched at any depth.
        out: Folder for figures and numbers.
        what: Measurements from `WHAT`.
        options: Settings of the measurements.
        size: Image side, in pixels; None means the model's own.
        limit: Largest number of images, evenly spread over the sorted files.
        weights: Weights file for a single timm name.
        pretrained: Whether timm names get their published weights; None means those that have
            some, and standard error names the others. Otherwise their weights are random.

    Returns:
        The numbers, by model.

    Raises:
        UsageError: unknown name or setting.
        UserError: no readable images, weights that cannot be fetched, or a folder that cannot be
            written.
    """
    if weights is not None and len(models) > 1:
        raise UsageError(f"--weights goes with one model, not with {len(models)}")
    if unknown := set(what) - set(WHAT):
        name = min(unknown)
        raise UsageError(f"--what is {name!r}, allowed: {', '.join(WHAT)}{nearest(name, WHAT)}")
    root, folder = Path(images), Path(out)
    found = images_below(root)
    for note in found.notes():
        print(note, file=sys.stderr)
    paths, unreadable = spread_evenly(found.images, limit), dict[Path, str]()
    options = options or Options()
    common = {"images": str(images), "count": len(paths), "files": digest(root, paths)}
    common["size"] = size
    results = {}
    for source in models:
        used = _weights_of(source, weights, pretrained)
        model_settings = [*identity(source), *used]
        record = Record(folder / file_name(source), {**common, "model": model_settings})
        todo = [name for name in what if not record.has(name, options.of(name))]
        if todo:
            needs_layers = any(MEASUREMENTS[name].needs_layers for name in todo)
            opened, preprocess = open_network(source, size, weights, pretrained, needs_layers)
            if opened.report is not None:
                print(opened.report, file=sys.stderr)
            if pretrained is None and (about := describe_weights(opened)) is not None:
                print(about, file=sys.stderr)
            chosen = list(preprocess.choose(paths))
            task = opened.info.task
            classes = opened.info.classes if task == DEFAULT_TASK else None
            labels = class_labels(root, chosen, classes or None)
            subject = Subject(
                source, opened.network, preprocess, chosen, labels, options, unreadable, task=task
            )
            for name in todo:
                _measure(name, subject, record)
        results[source] = record.read(what)
    if unreadable:
        print(describe_unreadable(unreadable.values(), len(paths)), file=sys.stderr)
    draw(results, folder)
    return results


def _weights_of(source: str, weights: str | None, pretrained: bool | None) -> list[Any]:
    """Returns what distinguishes the weights of a timm name in the record; [] if random."""
    if not is_model_name(source):
        return []
    if weights is not None:
        return identity(weights)
    return ["published"] if pretrained is not False and has_published_weights(source) else []


def _measure(name: str, subject: Subject, record: Record) -> None:
    part = record.part(name, subject.options.of(name))
    try:
        found = MEASUREMENTS[name].run(replace(subject, part=part))
        record.add(name, subject.options.of(name), found)
    except (ValueError, AssertionError) as error:  # timm asserts the image size
        raise UserError(f"{subject.source}: {error}") from error
