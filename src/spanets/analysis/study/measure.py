"""The measurements of `--what`: one function each, from a network and images to numbers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.layers import DropPath
from torch import Tensor, nn

from spanets.analysis.capture import capture, family_of, find_modules, on_maps, stream, to_maps
from spanets.analysis.fourier import PROFILES, RunningMoments, SpectrumStatistics
from spanets.analysis.response import (
    effective_receptive_field,
    frequency_response,
    impulse_magnitude,
)
from spanets.analysis.robustness import (
    CUTOFFS,
    Answers,
    Model,
    band_variants,
    compare_answers,
    frequency_grid,
    wave_variants,
)
from spanets.analysis.study.corruptions import SEVERITY, centre_frequency, corrupt_images
from spanets.analysis.study.inputs import batches
from spanets.analysis.study.record import Part
from spanets.analysis.study.reliance import measure_reliance
from spanets.data.corruptions import KINDS
from spanets.tasks import DEFAULT_TASK
from spanets_runtime.errors import UsageError
from spanets_runtime.preprocessing import Preprocessing
from spanets_runtime.progress import progress

FIELD_IMAGES = 4
"""Number of images for the mean receptive field, which changes little with more."""

CHANGED_IMAGES = 64
"""Number of images for the frequencies that a corruption changes."""

EPSILON_AT_224 = 15.7
"""Norm of the sinusoids of Yin et al., 2019, on ImageNet: 0.07 per pixel, root mean square."""


@dataclass(frozen=True)
class Options:
    """Settings of the measurements.

    Attributes:
        sites: See `find_modules`.
        profile: Profile of the relative log amplitude: "diagonal" or "radial".
        epsilon: See `perturb`; None means 15.7 at 224², and the same per pixel at other sizes.
        frequencies: Frequencies per side of the sensitivity map, odd.
        batch_size: Images at a time; it does not affect the numbers.
    """

    sites: str | Sequence[str] = "mixers"
    profile: str = "diagonal"
    epsilon: float | None = None
    frequencies: int = 15
    batch_size: int = 16

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise UsageError(f"--profile is {self.profile!r}, allowed: {', '.join(PROFILES)}")
        if self.epsilon is not None and not 0 < self.epsilon < float("inf"):
            raise UsageError(f"--epsilon is {self.epsilon:g}, must be above 0, such as 15.7")
        if self.frequencies < 3 or self.frequencies % 2 == 0:
            raise UsageError(
                f"--frequencies is {self.frequencies}, must be odd, from 3 up, such as 15"
            )

    def of(self, name: str) -> dict[str, Any]:
        """Returns the options that a measurement depends on."""
        return {key: getattr(self, key) for key in MEASUREMENTS[name].options}


@dataclass(frozen=True)
class Subject:
    """A network, and the images it is measured on.

    Attributes:
        source: Name or path that the user gave.
        model: Network in evaluation mode.
        preprocess: Transform from an image to the network's input.
        paths: Image paths.
        labels: Classes of the images, or None.
        options: Settings of the measurements.
        unreadable: Collects skipped images with the reason.
        part: Storage of an unfinished measurement.
        task: What the network is for. Only a classifier's largest output is its answer.
    """

    source: str
    model: nn.Module
    preprocess: Preprocessing
    paths: Sequence[Path]
    labels: Sequence[int] | None
    options: Options
    unreadable: dict[Path, str] = field(default_factory=dict)
    part: Part | None = None
    task: str = DEFAULT_TASK

    def require_accuracy(self) -> None:
        """Raises a ValueError if the network is known to be no classifier."""
        if self.task != DEFAULT_TASK:
            raise ValueError(f"is for {self.task}, so it has no accuracy")

    def modules(self) -> list[str]:
        """Returns the names of the selected modules."""
        return find_modules(self.model, self.options.sites)

    def images(self, count: int | None = None) -> Iterator[Tensor]:
        """Yields all images in batches, or the first `count` images in one batch."""
        size = self.options.batch_size if count is None else count
        found = batches(self.paths, self.preprocess, size, unreadable=self.unreadable)
        return (images for _, images in found)

    def standardization(self) -> tuple[Tensor, Tensor]:
        """Returns the mean and the standard deviation (C, 1, 1) that standardize pixels."""
        mean, std = self.preprocess.mean, self.preprocess.std
        return torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]


def measure_amplitude(subject: Subject) -> dict[str, Any]:
    """Measures relative log amplitude and spectra of the outputs, by module."""
    statistics = SpectrumStatistics(subject.options.profile)
    stream(subject.model, subject.images(), statistics, subject.modules())
    return statistics.results()


def measure_response(subject: Subject) -> dict[str, Any]:
    """Measures each module's gain per frequency, linearized at its input for an image."""
    table = {}
    for name, (function, point) in progress(_linearized(subject).items(), "response"):
        response = frequency_response(function, point)
        gain, leakage = response.gain.numpy(), response.leakage.numpy()
        table[name] = {"gain": gain, "leakage": leakage, "bands": response.bands()}
    return table


def measure_impulse(subject: Subject) -> dict[str, Any]:
    """Measures the magnitude of the impulse response, by module."""
    return {
        name: impulse_magnitude(function, point).numpy()
        for name, (function, point) in _linearized(subject).items()
    }


def _linearized(subject: Subject) -> dict[str, tuple[Model, Tensor]]:
    """Returns, by module, a function of maps and its input maps for the first image."""
    model, names, images = subject.model, subject.modules(), next(subject.images(1))
    points: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, given, name=name: points.__setitem__(name, given[0])
        )
        for name in names
    ]
    try:
        capture(model, images, names)
    finally:
        for handle in handles:
            handle.remove()
    family, prefix = family_of(model), getattr(model, "num_prefix_tokens", 0)
    layouts = ("auto", "auto" if family is None else family.layout)
    size = (images.shape[-2], images.shape[-1])
    table = {}
    for name in names:
        module = model.get_submodule(name)
        if isinstance(module, DropPath | nn.Identity):
            raise ValueError(
                f"{name}: returns its input unchanged; use other --sites, such as blocks"
            )
        try:
            table[name] = on_maps(module, points[name], size, layouts, prefix)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return table


def measure_receptive_field(subject: Subject) -> Any:
    """Measures the effective receptive field of the last map's centre."""
    model = subject.model
    if not hasattr(model, "forward_features"):
        raise ValueError("has no forward_features, which the receptive field needs")
    forward: Any = model.forward_features
    family, prefix = family_of(model), getattr(model, "num_prefix_tokens", 0)
    layout = "auto" if family is None else family.layout
    images = next(subject.images(FIELD_IMAGES))

    def features(images: Tensor) -> Tensor:
        return to_maps(forward(images), (images.shape[-2], images.shape[-1]), layout, prefix)

    return effective_receptive_field(features, images).numpy()


def measure_sensitivity(subject: Subject) -> dict[str, Any]:
    """Measures the effect of a sinusoid of each frequency on the answers (Yin et al., 2019).

    Networks that are no classifiers have no errors, but the change of their outputs.
    """
    side = subject.preprocess.size
    grid = frequency_grid(side, side, subject.options.frequencies)
    epsilon = subject.options.epsilon or EPSILON_AT_224 * side / 224

    def ask(model: Model, images: Tensor, numbers: list[int], targets: Tensor | None) -> Answers:
        waves = wave_variants(images, grid.pairs, epsilon, numbers)
        return compare_answers(model, images, waves, targets)

    moments, reference = _accumulate(subject, ask, len(grid.pairs), "sensitivity")
    result = {
        "rows": grid.rows,
        "columns": grid.columns,
        "side": side,
        "epsilon": epsilon,
        "reference": reference,
        "images": moments["change"].count,
        "change": moments["change"].mean[grid.index],
    }
    if "wrong" in moments and subject.task == DEFAULT_TASK:
        result["error"] = moments["wrong"].mean[grid.index]
        result["clean_error"] = float(moments["clean_wrong"].mean)
    return result


def measure_bands(subject: Subject) -> dict[str, Any]:
    """Measures the accuracy on low-passed and high-passed images.

    Raises:
        ValueError: the network is no classifier.
    """
    subject.require_accuracy()

    def ask(model: Model, images: Tensor, numbers: list[int], targets: Tensor | None) -> Answers:
        return compare_answers(model, images, band_variants(images), targets)

    moments, reference = _accumulate(subject, ask, 2 * len(CUTOFFS), "bands")
    if "wrong" not in moments:
        raise ValueError("its output is not (B, classes), so it has no accuracy")
    wrong = moments["wrong"]
    accuracy = 1 - wrong.mean
    band = 1.96 * wrong.deviation / np.sqrt(wrong.count)
    curves = np.stack([accuracy, np.maximum(accuracy - band, 0), np.minimum(accuracy + band, 1)])
    low, high = curves[:, : len(CUTOFFS)], curves[:, len(CUTOFFS) :]
    return {
        "cutoffs": CUTOFFS,
        "reference": reference,
        "images": wrong.count,
        "clean": 1 - float(moments["clean_wrong"].mean),
        "low_pass": dict(zip(("accuracy", "low", "high"), low, strict=True)),
        "high_pass": dict(zip(("accuracy", "low", "high"), high, strict=True)),
    }


def measure_corruptions(subject: Subject) -> dict[str, Any]:
    """Measures the accuracy on corrupted images by kind, and which frequencies each kind changes.

    Raises:
        ValueError: the network is no classifier, or its images have other than three channels.
    """
    subject.require_accuracy()

    def ask(model: Model, images: Tensor, numbers: list[int], targets: Tensor | None) -> Answers:
        corrupted = (corrupt_images(images, kind, numbers) for kind in KINDS)
        return compare_answers(model, images, corrupted, targets)

    moments, reference = _accumulate(subject, ask, len(KINDS), "corruptions")
    if "wrong" not in moments:
        raise ValueError("its output is not (B, classes), so it has no accuracy")
    mean, std = subject.standardization()
    images = next(subject.images(CHANGED_IMAGES)) * std + mean
    centres = [
        float(centre_frequency(corrupt_images(images, kind, range(len(images))) - images).mean())
        for kind in KINDS
    ]
    wrong = moments["wrong"]
    accuracy = (1 - wrong.mean).tolist()
    return {
        "severity": SEVERITY,
        "reference": reference,
        "images": wrong.count,
        "clean": 1 - float(moments["clean_wrong"].mean),
        "mean": float(np.mean(accuracy)),
        "kinds": {
            kind: {"accuracy": right, "centre_frequency": centre}
            for kind, right, centre in zip(KINDS, accuracy, centres, strict=True)
        },
    }


Ask = Callable[[Model, Tensor, list[int], Tensor | None], Answers]


def _accumulate(
    subject: Subject, ask: Ask, variants: int, title: str
) -> tuple[dict[str, RunningMoments], str]:
    """Accumulates answers over all images; resumes an interrupted call.

    Returns:
        Moments by field of `Answers`, and the reference for the answers.
    """
    state = (subject.part.load() if subject.part else None) or {"first": 0, "moments": {}}
    moments = {name: RunningMoments.restore(row) for name, row in state["moments"].items()}
    preprocess, labels = subject.preprocess, subject.labels
    mean, std = subject.standardization()
    calls = (1 + variants) * (len(subject.paths) - state["first"])
    with progress(None, title, total=calls, unit="image") as bar:

        def model(pixels: Tensor) -> Tensor:
            bar.update(len(pixels))
            return subject.model((pixels - mean) / std)

        loaded = batches(
            *(subject.paths, preprocess, subject.options.batch_size, state["first"]),
            unreadable=subject.unreadable,
        )
        for numbers, images in loaded:
            targets = None if labels is None else torch.tensor([labels[n] for n in numbers])
            answers = ask(model, images * std + mean, numbers, targets)
            for name, samples in vars(answers).items():
                if samples is not None:
                    moments.setdefault(name, RunningMoments()).add(samples)
            if subject.part:
                states = {name: row.state() for name, row in moments.items()}
                subject.part.save({"first": numbers[-1] + 1, "moments": states})
    return moments, "own prediction" if labels is None else "labels"


@dataclass(frozen=True)
class Measurement:
    """A measurement that `--what` can name.

    Attributes:
        run: Function that measures.
        options: Names of the options that affect the numbers.
        needs_layers: Whether it watches layers, which exported files do not show.
    """

    run: Callable[[Subject], Any]
    options: tuple[str, ...] = ()
    needs_layers: bool = True


MEASUREMENTS: Mapping[str, Measurement] = {
    "amplitude": Measurement(measure_amplitude, ("sites", "profile")),
    "response": Measurement(measure_response, ("sites",)),
    "impulse": Measurement(measure_impulse, ("sites",)),
    "receptive-field": Measurement(measure_receptive_field),
    "sensitivity": Measurement(measure_sensitivity, ("epsilon", "frequencies"), needs_layers=False),
    "bands": Measurement(measure_bands, needs_layers=False),
    "corruptions": Measurement(measure_corruptions, needs_layers=False),
    "reliance": Measurement(measure_reliance, needs_layers=False),
}
