"""Fills in the preprocessing that a recipe leaves open, as the pretrained weights were trained."""

import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from spanets.recipe.keys import read_keys
from spanets.recipe.sections import Recipe
from spanets.recipe.trust import is_address
from spanets.recipe.values import convert
from spanets_runtime.errors import UserError, first_line
from spanets_runtime.reading import read_text_file

OPEN = ("mean", "std", "crop_pct", "interpolation")
"""The keys of the section `data` that are filled in."""

_CONFIG = "config.json"  # of a pushed folder
_MOST_CONFIG = 2**24  # its largest size that is read, in bytes


def settle_preprocessing(recipe: Recipe, given: Collection[str]) -> None:
    """Fills in, in place, the open keys of a recipe's section `data`.

    Args:
        recipe: The recipe.
        given: Dotted names of the keys that the user set; of these, those that are null are open.
    """
    left = {
        key
        for key in OPEN
        if hasattr(recipe.data, key)
        and (f"data.{key}" not in given or getattr(recipe.data, key) is None)
    }
    # A recipe that a run recorded leaves none open, so its initial weights are not needed again.
    expected = expected_preprocessing(recipe) if left else {}
    for key in left:
        setattr(recipe.data, key, expected[key])
    count = getattr(recipe.data, "channels", None) or 3
    for key in ("mean", "std"):  # one number stands for all channels
        if len(values := getattr(recipe.data, key, ())) == 1:
            setattr(recipe.data, key, values * count)


def expected_preprocessing(recipe: Recipe) -> dict[str, Any]:
    """Returns the values that suit a recipe's initial weights, for the keys that its task has.

    They are those that the weights file holds; or else those of the model's published weights.

    Raises:
        UserError: the file's metadata are damaged.
    """
    defaults = type(recipe.data)()
    values = {key: getattr(defaults, key) for key in OPEN if hasattr(defaults, key)}
    if recipe.model.pretrained or recipe.model.weights is not None:
        own = _stored_with(recipe.model.weights) or _preprocessing_of(recipe.model.name)
        types = {key: read_keys(type(recipe))[f"data.{key}"].type for key in values}
        for key in values.keys() & own.keys():
            with suppress(TypeError):  # timm has interpolations that recipes have not
                values[key] = convert(own[key], types[key])
    count = getattr(recipe.data, "channels", None) or 3
    # Weights for images of other channels are adapted; their means do not tell of the others.
    return {
        key: getattr(defaults, key) if isinstance(value, tuple) and len(value) != count else value
        for key, value in values.items()
    }


def _stored_with(weights: str | None) -> Mapping[str, Any]:
    """Returns the preprocessing that a checkpoint of ours or a pushed folder holds, or {}."""
    if weights is None or is_address(weights):  # `trust` decides whether it may be contacted
        return {}
    try:
        path = Path(weights)
        config = path / _CONFIG
        if config.is_file():
            return _read_config(config)
        status = os.stat(path)
    except (OSError, ValueError):  # loading it says what is wrong
        return {}
    return _read_stored(weights, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)  # reading a file takes long, and the note about it needs it again
def _read_stored(weights: str, changed: int, size: int) -> Mapping[str, Any]:
    """Returns the preprocessing in a checkpoint's metadata; time and size are those of the file."""
    from spanets.checkpoint import INFO_KEY, read_info
    from spanets.weights import WeightsError
    from spanets.weights.files import read_checkpoint

    try:
        content = read_checkpoint(weights)
    except WeightsError:  # as above
        return {}
    return read_info(content, weights).preprocessing if INFO_KEY in content else {}


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(read_text_file(path, _MOST_CONFIG))["pretrained_cfg"]
        return {key: values[key] for key in OPEN if key in values}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({first_line(error)})") from error


def _preprocessing_of(name: str) -> dict[str, Any]:
    """Returns the preprocessing that a model's published weights were trained with."""
    # timm takes seconds to import, and most recipes do not need it.
    from timm.data import resolve_data_config
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name, allow_unregistered=True)
    return {} if config is None else resolve_data_config(pretrained_cfg=config.to_dict())


def describe_preprocessing(recipe: Recipe) -> str:
    """Returns a line about the preprocessing of the initial weights, and what was changed."""
    whose = f"the pretrained weights of {recipe.model.name} expect"
    if _stored_with(recipe.model.weights):
        whose = f"the weights of {recipe.model.weights} expect"
    expected = expected_preprocessing(recipe)
    parts = [f"{key} {_show(value)}" for key, value in expected.items()]
    changed = [f"data.{k}" for k, value in expected.items() if getattr(recipe.data, k) != value]
    line = f"{whose} {', '.join(parts)}"
    return f"{line}; the recipe changes {', '.join(changed)}" if changed else f"{line}: used"


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(f"{number:g}" for number in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
