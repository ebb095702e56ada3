"""Finds a model's weights among all that a checkpoint holds, by the names of the model itself.

Trainers wrap state dicts ("state_dict", "model", ...), prefix every key ("module.", "model.net.",
...), put losses and teachers beside the model, and keep averages of the weights. None of these
words is a standard, so the place and the prefix are taken under which most of the model's names
are found.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from spanets.weights.errors import WeightsError
from spanets.weights.makers import NotPlain

# Deeper than any training script; a damaged file may hold itself.
_MAX_DEPTH = 4
_MAX_PLACES = 1000
_MAX_PREFIX_PARTS = 8

# Where main weights are, the first that is there. Others follow in the file's order.
_USUAL_PLACES = ("state_dict", "model")

_AVERAGE = re.compile(r"(?:^|[._])(?:ema|avg|averaged?|swa|polyak|shadow)(?:$|[._])", re.I)

Values = dict[str, Tensor | NotPlain]


@dataclass(frozen=True)
class Copy:
    """One set of weights in a checkpoint.

    Attributes:
        place: The entries that it lies in, one in the other.
        prefix: What its keys begin with.
        values: By key, with the prefix taken off.
        outside: Keys of the same entry without the prefix.
        known: How many of the keys are names of the model.
        averaged: Whether these are averages over updates.
    """

    place: tuple[str, ...]
    prefix: str
    values: Values
    outside: tuple[str, ...]
    known: int
    averaged: bool

    @property
    def name(self) -> str:
        """What the file calls it."""
        parts = [".".join(self.place), f"{self.prefix}*" if self.prefix else ""]
        return ": ".join(part for part in parts if part) or "the file's keys"


def find_copies(
    content: Mapping[str, Any], is_name: Callable[[str], bool], names: int
) -> list[Copy]:
    """Finds the sets of weights in a checkpoint that have the most of a model's names.

    Args:
        content: Of the file.
        is_name: Whether a key is a name of the model.
        names: How many it has.

    Returns:
        The one to use unless another is asked for, then others with at least half as many names.

    Raises:
        WeightsError: there are no tensors by name.
    """
    places = dict(_places(content))
    if not places:
        raise WeightsError("holds no tensors by name, so it is no checkpoint")
    found = [
        (place, prefix, known)
        for place, values in places.items()
        for prefix, known in _count_names(values, is_name).items()
    ]
    most = max((known for *_, known in found), default=0)
    sizes = {place: len(values) for place, values in places.items()}
    # A few names that fit by chance are no reason to leave the rest out.
    chosen = [c for c in found if 2 * c[2] >= max(most, 1) and 2 * c[2] >= min(names, sizes[c[0]])]
    if not chosen:
        chosen = [(min(places, key=_usual), "", 0)]
    copies = [_cut_out(content, places[c[0]], *c) for c in chosen]
    return sorted(copies, key=lambda copy: (copy.known < most, _named_averaged(copy), *_rank(copy)))


def choose_copy(copies: list[Copy], ema: bool | None) -> Copy:
    """Chooses among sets of weights: the first, or the first that is averaged or that is not.

    Raises:
        WeightsError: there is none of the kind.
    """
    for copy in copies:
        if ema is None or copy.averaged is ema:
            return copy
    raise WeightsError(
        "holds no averaged weights that fit the model, such as state_dict_ema or model_ema"
        if ema
        else f"holds averaged weights alone ({copies[0].name})"
    )


def _places(
    content: Mapping[Any, Any], place: tuple[str, ...] = (), seen: set[int] | None = None
) -> Iterator[tuple[tuple[str, ...], Values]]:
    """Yields every mapping of texts that holds tensors, with the keys that lead to it."""
    seen = set() if seen is None else seen
    if id(content) in seen or len(seen) > _MAX_PLACES:
        return
    seen.add(id(content))
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    values: Values = {k: v for k, v in named.items() if isinstance(v, Tensor | NotPlain)}
    if values:
        yield place, values
    if len(place) < _MAX_DEPTH:
        for key, value in named.items():
            if isinstance(value, Mapping):
                yield from _places(value, (*place, key), seen)


def _count_names(values: Values, is_name: Callable[[str], bool]) -> dict[str, int]:
    """Counts by prefix how many keys are names of the model behind it."""
    counts: Counter[str] = Counter()
    for key in values:
        start = 0
        for _ in range(_MAX_PREFIX_PARTS + 1):
            if is_name(key[start:]):
                counts[key[:start]] += 1
            start = key.find(".", start) + 1
            if not start:
                break
    return counts


def _cut_out(
    content: Mapping[str, Any], values: Values, place: tuple[str, ...], prefix: str, known: int
) -> Copy:
    averaged = (
        _AVERAGE.search(".".join((*place, prefix))) is not None
        or "n_averaged" in values  # torch's AveragedModel
        # Lightning's callback puts the average in the model's place.
        or (place == ("state_dict",) and "averaging_state" in content)
    )
    return Copy(
        place,
        prefix,
        {key.removeprefix(prefix): v for key, v in values.items() if key.startswith(prefix)},
        tuple(key for key in values if not key.startswith(prefix)),
        known,
        averaged,
    )


def _named_averaged(copy: Copy) -> bool:
    return _AVERAGE.search(".".join((*copy.place, copy.prefix))) is not None


def _rank(copy: Copy) -> tuple[int, int]:
    return _usual(copy.place), copy.prefix.count(".")


def _usual(place: tuple[str, ...]) -> int:
    """Orders places: the usual ones, one in the other or not, then the file itself, then others."""
    last = len(_USUAL_PLACES) + 1
    ranks = [_USUAL_PLACES.index(key) if key in _USUAL_PLACES else last for key in place]
    return max(ranks, default=len(_USUAL_PLACES))
