"""Selects a model's tensors from a checkpoint file, and reports what else the file holds."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from spanets.weights.adapters import merge_content
from spanets.weights.errors import WeightsError, show_name
from spanets.weights.files import StateDict, read_checkpoint
from spanets.weights.finding import Copy, Values, choose_copy, find_copies
from spanets.weights.report import LoadReport

Given = str | Path | Mapping[str, Any]
"""A file's path, or its content after reading."""


def place_of(given: Given) -> str:
    """Returns the name of a file for messages."""
    return "the weights" if isinstance(given, Mapping) else str(given)


def take_weights(
    given: Given, is_name: Callable[[str], bool], names: int, ema: bool | None
) -> tuple[StateDict, LoadReport]:
    """Reads the weights of a file whose names match a model.

    Args:
        given: Path of the file or of a folder with one, or the file's content.
        is_name: Tells whether a key is a name of the model, ours or released.
        names: Number of names that the model has.
        ema: True selects weights averaged over updates, False the others, None those in the file's
            main place.

    Returns:
        Tensors by name, without a prefix, and a report on the rest of the file.

    Raises:
        WeightsError: unreadable file, or no such weights in it.
    """
    content = given if isinstance(given, Mapping) else read_checkpoint(given)
    place = place_of(given)
    try:
        content = merge_content(content)
        copies = find_copies(content, is_name, names)
        chosen = choose_copy(copies, ema)
        tensors = _check_plain(chosen.values)
    except WeightsError as error:
        raise WeightsError(f"{place}: {error}") from None
    others = [copy for copy in copies if copy is not chosen]
    prefixes = tuple(copy.prefix for copy in others if copy.place == chosen.place)
    report = LoadReport(
        place,
        prefix=chosen.prefix,
        outside=[key for key in chosen.outside if not key.startswith(prefixes)],
        averaged=chosen.name if chosen.averaged else None,
        unused={copy.name: _describe(copy, chosen) for copy in others},
    )
    return tensors, report


def read_state_dict(path: str | Path) -> StateDict:
    """Reads the weights of a checkpoint file, under the names that the file gives them.

    If the file has several sets, such as averages, it takes the main one.

    Raises:
        WeightsError: unreadable file, or one without named tensors.
    """
    return take_weights(path, lambda key: False, 0, ema=None)[0]


def _check_plain(values: Values) -> StateDict:
    tensors: StateDict = {}
    for key, value in values.items():
        if not isinstance(value, Tensor):
            raise WeightsError(f"{show_name(key)} is not a plain tensor")
        tensors[key] = value
    return tensors


def _describe(copy: Copy, chosen: Copy) -> str:
    what = f"{len(copy.values)} tensors"
    if copy.averaged and not chosen.averaged:
        return f"{what}, averages over updates; model.weights_ema or --ema uses them"
    if chosen.averaged and not copy.averaged:
        return f"{what}, of the last update alone; model.weights_ema false uses them"
    return what
