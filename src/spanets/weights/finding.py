"""Finds a model's weights in the content of a checkpoint, by the model's own tensor names.

Trainers wrap state dicts ("state_dict", "model", ...), prefix every key ("module.", "model.net.",
...), add losses and teachers, and keep averages of the weights. None of these names is standard.
So this module chooses the place and the prefix with most of the model's names.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from spanets.weights.errors import WeightsError
from spanets.weights.makers import NotPlain

# Deeper than any training script nests; a damaged file may even contain itself.
_MAX_DEPTH = 4
_MAX_PLACES = 1000
_MAX_PREFIX_PARTS = 8

# Places of the main weights, by priority. Other places follow in the file's order.
_USUAL_PLACES = ("state_dict", "model")

_AVERAGE = re.compile(r"(?:^|[._])(?:ema|avg|averaged?|swa|polyak|shadow)(?:$|[._])", re.I)

Values = dict[str, Tensor | NotPlain]


@dataclass(frozen=True)
class Copy:
    """One set of weights in a checkpoint.

    Attributes:
        place: Keys of the nested entries that lead to it.
        prefix: Prefix of its keys.
        values: Tensors by key, without the prefix.
        outside: Keys of the same entry that lack the prefix.
        known: Number of keys that are names of the model.
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
        """Name of this set of weights in the file."""
        parts = [".".join(self.place), f"{self.prefix}*" if self.prefix else ""]
        return ": ".join(part for part in parts if part) or "the file's keys"


def find_copies(
    content: Mapping[str, Any], is_name: Callable[[str], bool], names: int
) -> list[Copy]:
    """Finds the sets of weights in a checkpoint that have most of a model's names.

    Args:
        content: Content of the file.
        is_name: Tells whether a key is a name of the model.
        names: Number of names that the model has.

    Returns:
        The default set first, then others with at least half as many names.

    Raises:
        WeightsError: the file has no named tensors.
    """
    places = dict(_places(content))
    if not places:
        raise WeightsError("holds no named tensors, so it is not a checkpoint")
    found = [
        (place, prefix, known)
        for place, values in places.items()
        for prefix, known in _count_names(values, is_name).items()
    ]
    most = max((known for *_, known in found), default=0)
    sizes = {place: len(values) for place, values in places.items()}
    # If only a few names match, that may be chance; do not drop the remaining tensors for it.
    chosen = [c for c in found if 2 * c[2] >= max(most, 1) and 2 * c[2] >= min(names, sizes[c[0]])]
    if not chosen:
        chosen = [(min(places, key=_usual), "", 0)]
    copies = [_cut_out(content, places[c[0]], *c) for c in chosen]
    return sorted(copies, key=lambda copy: (copy.known < most, _named_averaged(copy), *_rank(copy)))


def choose_copy(copies: list[Copy], ema: bool | None) -> Copy:
    """Returns the first set of weights, or the first averaged (ema) or not averaged one.

    Raises:
        WeightsError: there is no such set.
    """
    for copy in copies:
        if ema is None or copy.averaged is ema:
            return copy
    raise WeightsError(
        "holds no averaged weights that fit the model, such as state_dict_ema or model_ema"
        if ema
        else f"holds only averaged weights ({copies[0].name})"
    )


def _places(
    content: Mapping[Any, Any], place: tuple[str, ...] = (), seen: set[int] | None = None
) -> Iterator[tuple[tuple[str, ...], Values]]:
    """Yields every mapping with tensors under text keys, with the keys that lead to it."""
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
    """Counts, for each prefix, the keys that are names of the model without it."""
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
        # Lightning's callback stores the average under the model's usual key.
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
    """Returns a place's rank: usual places (also nested), then the file itself, then others."""
    last = len(_USUAL_PLACES) + 1
    ranks = [_USUAL_PLACES.index(key) if key in _USUAL_PLACES else last for key in place]
    return max(ranks, default=len(_USUAL_PLACES))
