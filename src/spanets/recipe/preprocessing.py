"""Fills in the preprocessing that a recipe leaves open, as the pretrained weights were trained."""

from collections.abc import Collection
from typing import Any

from spanets.recipe.sections import Recipe

OPEN = ("mean", "std", "crop_pct", "interpolation")
"""The keys of the section `data` that are filled in."""


def settle_preprocessing(recipe: Recipe, given: Collection[str]) -> None:
    """Fills in, in place, the open keys of a recipe's section `data`.

    Args:
        recipe: The recipe.
        given: Dotted names of the keys that the user set; of these, those that are null are open.
    """
    for key, value in expected_preprocessing(recipe).items():
        if f"data.{key}" not in given or getattr(recipe.data, key) is None:
            setattr(recipe.data, key, value)
    count = getattr(recipe.data, "channels", None) or 3
    for key in ("mean", "std"):  # one number stands for all channels
        if len(values := getattr(recipe.data, key, ())) == 1:
            setattr(recipe.data, key, values * count)


def expected_preprocessing(recipe: Recipe) -> dict[str, Any]:
    """Returns the values that suit a recipe's initial weights, for the keys that its task has."""
    defaults = type(recipe.data)()
    values = {key: getattr(defaults, key) for key in OPEN if hasattr(defaults, key)}
    if recipe.model.pretrained or recipe.model.weights is not None:
        own = _preprocessing_of(recipe.model.name)
        values |= {key: own[key] for key in values if key in own}
    return values


def _preprocessing_of(name: str) -> dict[str, Any]:
    """Returns the preprocessing that a model's published weights were trained with."""
    # timm takes seconds to import, and most recipes do not need it.
    from timm.data import resolve_data_config
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name, allow_unregistered=True)
    return {} if config is None else resolve_data_config(pretrained_cfg=config.to_dict())


def describe_preprocessing(recipe: Recipe) -> str:
    """Returns a line about the preprocessing of the pretrained weights, and what was changed."""
    expected = expected_preprocessing(recipe)
    parts = [f"{key} {_show(value)}" for key, value in expected.items()]
    changed = [f"data.{k}" for k, value in expected.items() if getattr(recipe.data, k) != value]
    line = f"the pretrained weights of {recipe.model.name} expect {', '.join(parts)}"
    return f"{line}; the recipe changes {', '.join(changed)}" if changed else f"{line}: used"


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(f"{number:g}" for number in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
