"""Measures a classifier's reliance on shape, texture and colour, and on bands of frequencies."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spanets.analysis.reliance import (
    CONFLICT_CUTOFFS,
    RESAMPLES,
    bootstrap,
    mix_frequencies,
    pair_classes,
    suppressions,
)
from spanets.analysis.study.inputs import batches
from spanets_runtime.progress import progress

if TYPE_CHECKING:
    from spanets.analysis.study.measure import Subject

Answer = Callable[[Tensor], Tensor]
"""Function from images (B, C, H, W) in pixel units to the most likely classes (B,)."""

SEED = 0
"""Seed of the shuffled patches, and of the pairs."""

WHOLE = "whole"
FOLLOWS = {"follows_low": "l", "follows_high": "h", "neither": "n"}
"""Letter in the raw answers for each outcome of a conflict."""


def measure_reliance(subject: "Subject") -> dict[str, Any]:
    """Measures the accuracy without each cue, and whose frequencies answers follow in a conflict.

    Raises:
        ValueError: the network is no classifier.
    """
    subject.require_accuracy()
    state = (subject.part.load() if subject.part else None) or {
        "first": 0,  # of the images that have no answers yet
        "numbers": [],
        "classes": [],
        "right": {},
        "follows": {},
    }
    mean, std = subject.standardization()

    def answer(pixels: Tensor) -> Tensor:
        logits = subject.model((pixels - mean) / std)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
            raise ValueError("its output is not (B, classes), so it has no accuracy")
        return logits.argmax(1)

    with torch.no_grad():
        _suppress(subject, answer, state)
        pairs = pair_classes(state["classes"], SEED)
        _conflict(subject, answer, state, pairs)
    return {
        "reference": "own prediction" if subject.labels is None else "labels",
        "images": len(state["numbers"]),
        "guess": max(Counter(state["classes"]).values()) / len(state["classes"]),
        "seed": SEED,
        "resamples": RESAMPLES,
        **summarise(state["right"]),
        "conflict": {"pairs": len(pairs), **summarise_conflict(state["follows"])},
        "answers": {key: state[key] for key in ("numbers", "classes", "right", "follows")},
    }


def _suppress(subject: "Subject", answer: Answer, state: dict[str, Any]) -> None:
    """Records by image whether the answer to each suppression is right, as 1 or 0."""
    mean, std = subject.standardization()
    left = len(subject.paths) - state["first"]
    loaded = batches(
        *(subject.paths, subject.preprocess, subject.options.batch_size, state["first"]),
        unreadable=subject.unreadable,
    )
    with progress(None, "suppression", total=left, unit="image") as bar:
        for numbers, standardized in loaded:
            images = standardized * std + mean
            own, labels = answer(images), subject.labels
            wanted = own if labels is None else torch.tensor([labels[n] for n in numbers])
            found = {WHOLE: own}
            found |= {name: answer(x) for name, x in suppressions(images, numbers, SEED)}
            for name, classes in found.items():
                row = "".join("01"[right] for right in classes.eq(wanted).tolist())
                state["right"][name] = state["right"].get(name, "") + row
            state["numbers"] += numbers
            state["classes"] += wanted.tolist()
            state["first"] = numbers[-1] + 1
            bar.update(len(numbers))
            _save(subject, state)


def _conflict(
    subject: "Subject", answer: Answer, state: dict[str, Any], pairs: Sequence[tuple[int, int]]
) -> None:
    """Records which image of a pair the answer follows, twice a pair, by cut-off."""
    mean, std = subject.standardization()
    follows = state["follows"]
    done = len(next(iter(follows.values()), "")) // 2
    count = max(subject.options.batch_size // 2, 1)
    with progress(None, "conflict", total=2 * (len(pairs) - done), unit="image") as bar:
        for first in range(done, len(pairs), count):
            taken = [place for pair in pairs[first : first + count] for place in pair]
            paths = [subject.paths[state["numbers"][place]] for place in taken]
            read = [subject.preprocess(subject.preprocess.read(path)) for path in paths]
            images = torch.from_numpy(np.stack(read)) * std + mean
            classes = torch.tensor([state["classes"][place] for place in taken])
            other, other_classes = swap(images), swap(classes)
            for cutoff in CONFLICT_CUTOFFS:
                given = answer(mix_frequencies(images, other, cutoff))
                outcome = torch.where(
                    given.eq(classes), 0, torch.where(given.eq(other_classes), 1, 2)
                )
                row = "".join("lhn"[k] for k in outcome.tolist())
                follows[f"{cutoff:g}"] = follows.get(f"{cutoff:g}", "") + row
            bar.update(len(taken))
            _save(subject, state)


def swap(values: Tensor) -> Tensor:
    """Swaps the two members of each pair, along the first axis."""
    return values.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)


def _save(subject: "Subject", state: Mapping[str, Any]) -> None:
    if subject.part:
        subject.part.save(state)


def summarise(right: Mapping[str, str]) -> dict[str, Any]:
    """Returns accuracies, relative to whole images too, with paired intervals over images.

    Args:
        right: A letter for each image, 1 if its answer is right, by suppression.
    """
    whole = _is(right[WHOLE], "1")
    rows: dict[str, Any] = {}
    for name, letters in right.items():
        both = np.stack([whole, _is(letters, "1")], 1)
        rows[name] = {
            "accuracy": float(both[:, 1].mean()),
            **_interval(both, lambda means: means[:, 1]),
        }
        if name != WHOLE:
            rows[name]["relative"] = {
                "accuracy": float(both[:, 1].sum() / whole.sum()) if whole.any() else None,
                **_interval(both, lambda means: means[:, 1] / means[:, 0]),
            }
    return {WHOLE: rows.pop(WHOLE), "suppressed": rows}


def summarise_conflict(follows: Mapping[str, str]) -> dict[str, Any]:
    """Returns shares of the outcomes by cut-off, with intervals over pairs.

    Args:
        follows: Two letters of `FOLLOWS` for each pair, by cut-off; empty without pairs.
    """
    if not follows:
        return {}
    curves: dict[str, Any] = {"cutoffs": [float(cutoff) for cutoff in follows]}
    for name, letter in FOLLOWS.items():
        curve: dict[str, list[float | None]] = {"share": [], "low": [], "high": []}
        for letters in follows.values():
            of_pairs = _is(letters, letter).reshape(-1, 2).mean(1, keepdims=True)
            curve["share"].append(float(of_pairs.mean()))
            for key, edge in _interval(of_pairs, lambda means: means[:, 0]).items():
                curve[key].append(edge)
        curves[name] = curve
    return curves


def _is(letters: str, letter: str) -> NDArray[np.bool_]:
    return np.array(list(letters)) == letter


def _interval(
    samples: NDArray[np.generic], statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> dict[str, float | None]:
    low, high = bootstrap(samples, statistic) or (None, None)
    return {"low": low, "high": high}
