"""The panel "Balance": what λ of a stage does to contexts, spectrum and answers."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spanets.analysis.capture import hooked
from spanets.analysis.fourier import relative_log_amplitude
from spanets.analysis.study.explain import fit_to_images
from spanets.analysis.study.inputs import batches, class_labels
from spanets.explore.frequencies import profile_of
from spanets.explore.look import contexts_by_head
from spanets.explore.pictures import curves, heat, sheet
from spanets.explore.results import Series, Shown, answer_series, join, map_series
from spanets.explore.twins import balanced, balanced_stages, last_contexts
from spanets.explore.workbench import Settings, Workbench, run, tracked
from spanets.tasks import DEFAULT_TASK
from spanets_runtime.errors import UserError
from spanets_runtime.listing import spread_evenly

SWEEP = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""λ of the trade-off plot."""

MOST_SWEPT = 64
"""Largest number of images of the trade-off plot: each is run ten times."""

_BATCH = 16


def stage_and_balance(network: nn.Module, settings: Settings) -> tuple[str, tuple[float, ...]]:
    """Returns the chosen stage and λ of its heads; the first stage and its own λ if none are.

    Raises:
        UserError: the network has no SPAM.
    """
    known = balanced_stages(network)
    if not known:
        raise UserError(f"{type(network).__name__} has no SPAM, so it has no λ to set")
    stage = settings.stage or next(iter(known))
    own = next(iter(known.values())) if stage == "all" else known.get(stage, [])
    return stage, settings.balance or tuple(own)


@dataclass(frozen=True)
class _Watched:
    """What one image does in a network.

    Attributes:
        contexts: Contexts of a stage by head (heads, h, w).
        outputs: The network's outputs (1, outputs).
        maps: The output of the stage's last mixer (1, C, h, w).
    """

    contexts: Tensor
    outputs: Tensor
    maps: Tensor


@dataclass(frozen=True)
class _Compared:
    """One image with the network's own λ, and with other ones."""

    stage: str
    values: tuple[float, ...]
    watched: str
    rows: dict[str, _Watched]


def balance(bench: Workbench, words: list[str], settings: Settings) -> Shown:
    """Shows contexts, spectrum and answers with the network's own λ, and with other ones.

    The network stays as it is: a copy that shares its weights has the other λ.

    Raises:
        UsageError: the network has no such stage, or λ is out of range.
        UserError: the network has no SPAM.
    """
    return join([part(bench, words, settings) for part in (balanced_contexts, balanced_spectrum)])


def balanced_contexts(bench: Workbench, words: list[str], settings: Settings) -> Shown:
    """Shows the contexts and answers of `balance`."""
    (word,) = words
    model, prepared = bench.image_level(word), bench.prepare(word, settings.image)
    found = _compare(bench, word, settings)
    own, new = found.rows.values()
    change = ((new.outputs - own.outputs).norm() / own.outputs.norm()).item()
    answers = {name: model.answer(row.outputs) for name, row in found.rows.items()}
    titles = [f"head {i + 1}" for i in range(len(own.contexts))]
    top = max(float(row.contexts.max()) for row in found.rows.values())
    maps = {
        f"{name}, {title}": part
        for name, row in found.rows.items()
        for title, part in zip(titles, row.contexts, strict=True)
    }
    cells = {}
    for title, part in maps.items():
        over = fit_to_images(part[None], prepared.batch) * float(part.max()) / top
        cells[title] = heat(prepared.pixels, over, 150)
    series = (
        *answer_series(answers),
        *(
            Series("logits", name, [*range(row.outputs.shape[1])], row.outputs[0].numpy())
            for name, row in found.rows.items()
        ),
        Series("λ", found.stage, titles[: len(found.values)], np.array(found.values)),
        *map_series(f"context of {found.watched}", {t: m.numpy() for t, m in maps.items()}),
    )
    pictures = {"contexts": sheet(cells, len(titles), 150)}
    return Shown(pictures, answers, series, (f"logits changed by {change:.1%} of their length",))


def balanced_spectrum(bench: Workbench, words: list[str], settings: Settings) -> Shown:
    """Shows the spectrum of `balance`."""
    (word,) = words
    found = _compare(bench, word, settings)
    lines = {name: profile_of(row.maps) for name, row in found.rows.items()}
    plot = "relative log amplitude of the mixer's output against frequency (fraction of Nyquist)"
    series = tuple(Series(plot, name, x.tolist(), y) for name, (x, y) in lines.items())
    picture = curves(lines, "frequency (fraction of Nyquist)", "Δ log amplitude")
    return Shown({"spectrum": picture}, {}, series)


def _compare(bench: Workbench, word: str, settings: Settings) -> _Compared:
    model, image = bench.image_level(word), settings.image
    model.source.require_layers()
    batch = bench.prepare(word, image).batch
    with model.twins.borrow() as network:
        stage, values = stage_and_balance(network, settings)
        watched = next(iter(balanced_stages(network))) if stage == "all" else stage

        def watch() -> _Watched:
            with balanced(network, stage, values):  # also checks the stage
                return _watch(network, batch, watched)

        new = bench.remember(("λ", word, image, stage, str(values)), watch)
        own = bench.remember(
            ("own λ", word, image, watched), lambda: _watch(network, batch, watched)
        )
    return _Compared(stage, values, watched, {"own λ": own, "this λ": new})


def _watch(network: nn.Module, batch: Tensor, stage: str) -> _Watched:
    mixer = last_contexts(network)[stage].removesuffix(".context")
    found: dict[str, Tensor] = {}
    with hooked(network, [mixer], found.__setitem__, "nchw"):
        contexts, outputs = contexts_by_head(network, batch, stage)
    return _Watched(contexts[stage], outputs, found[mixer])


def tradeoff(bench: Workbench, words: list[str], settings: Settings) -> Shown:
    """Sweeps λ of a stage over the images of the folder: right answers and high frequencies.

    The truth is the images' folders or, without them, the answers with the network's own λ. What is
    no classifier has no right answers.

    Raises:
        UserError: there is no folder, or the network has no SPAM.
    """
    (word,) = words
    model = bench.image_level(word)
    model.source.require_layers()
    listing = bench.listing
    paths = spread_evenly(listing.images, min(settings.limit, MOST_SWEPT))
    is_classifier = model.source.info.task == DEFAULT_TASK
    labels = class_labels(listing.folder, paths, model.source.info.classes or None)
    unreadable: dict[Path, str] = {}
    right, highest, count = np.zeros(len(SWEEP)), np.zeros(len(SWEEP)), 0
    with model.twins.borrow() as network:
        stage, own = stage_and_balance(network, settings)
        given = batches(paths, model.source.preprocess, _BATCH, unreadable=unreadable)
        total = -(-len(paths) // _BATCH)
        for numbers, images in tracked(given, total, "trade-off"):
            answers = run(network, images)
            is_classifier &= answers.shape[1] > 1  # the largest of one number is always the first
            truth = answers.argmax(1)
            if labels is not None:
                truth = torch.tensor([labels[i] for i in numbers])
            for place, value in enumerate(SWEEP):
                with balanced(network, stage, [value] * len(own)):
                    outputs, last = _highest(network, images, stage)
                right[place] += (outputs.argmax(1) == truth).sum().item()
                highest[place] += last
            count += len(images)
    left = (f"{len(unreadable)} of {len(paths)} images left out, unreadable",) * bool(unreadable)
    shown = _show_highest(stage, highest / count)
    note = f"{stage}, {count} of {len(listing.images)} images"
    if is_classifier:
        against = "the images' folders" if labels is not None else "answers with the own λ"
        shown = join([_show_right(against, right / count), shown])
        note += f", against {against}"
    else:
        left = (f"{word}: is no classifier, so it has no right answers", *left)
    return replace(shown, notes=(note, *left, *listing.notes()))


def _show_right(against: str, shares: NDArray[np.float64]) -> Shown:
    name = f"right answers, against {against}"
    drawn = curves(
        {name: (np.array(SWEEP), shares)}, "λ of all heads", "share of right answers", (0, 1.02)
    )
    series = Series("share of right answers against λ", name, list(SWEEP), shares)
    return Shown({"right answers": drawn}, {}, (series,))


def _show_highest(stage: str, amplitudes: NDArray[np.float64]) -> Shown:
    lines = {"high frequencies": (np.array(SWEEP), amplitudes)}
    drawn = curves(lines, "λ of all heads", "Δ log amplitude at Nyquist")
    series = Series("Δ log amplitude at Nyquist against λ", stage, list(SWEEP), amplitudes)
    return Shown({"high frequencies": drawn}, {}, (series,))


def _highest(network: nn.Module, images: Tensor, stage: str) -> tuple[Tensor, float]:
    """Returns outputs, and the sum over images of the last mixer's Δ log amplitude at Nyquist."""
    last = last_contexts(network)
    name = (list(last.values())[-1] if stage == "all" else last[stage]).removesuffix(".context")
    found: dict[str, Tensor] = {}
    with hooked(network, [name], found.__setitem__, "nchw"):
        outputs = run(network, images)
    return outputs, relative_log_amplitude(found[name], "radial")[:, -1].sum().item()
