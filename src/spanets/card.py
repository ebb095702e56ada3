"""What a checkpoint says about its model, and how much of that is believed.

A card may come from anyone. It holds plain values, of which none is large or deep enough to
exhaust its reader; how large a model it may ask for, `model_limits` says.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from spanets.recipe import parse_recipe
from spanets.weights import WeightsError
from spanets_runtime.errors import UsageError

CARD_KEY = "spanets"
FORMAT = 1

# Of a card of ours some 200 values in four levels, and the names of the classes.
_MAX_VALUES = 100_000
_MAX_DEPTH = 32
_MAX_TEXT = 100_000

# What the preprocessing of all tasks may say; nothing else of a recipe's data.
_PREPROCESSING = frozenset(
    {"input_size", "crop_pct", "interpolation", "mean", "std", "resize", "test", "slide"}
    | {"short_side", "long_side", "train_short_sides"}
)

# The numbers that masks are written with; `read_numbers` checks them.
_OF_MASKS = ("first", "values")

# The side of an image, in the recipe's words.
_SIDE_KEYS = {"classification": "image_size", "segmentation": "crop"}


@dataclass(frozen=True)
class Card:
    """What is to be known about a checkpoint's model.

    Attributes:
        model: timm name.
        model_args: Arguments of `timm.create_model` beside the name and the number of classes.
        classes: Class names, in the order of the logits.
        preprocessing: Arguments of `timm.data.create_transform` for evaluation.
        recipe: The recipe it was trained by.
        version: Of this package.
        task: The kind of prediction.
        head: What stands on the model as a backbone, in the task's own words; classifiers: {}.
    """

    model: str
    model_args: dict[str, Any]
    classes: list[str]
    preprocessing: dict[str, Any]
    recipe: dict[str, Any]
    version: str
    task: str = "classification"
    head: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the card as plain values."""
        return {"format": FORMAT, **asdict(self)}


def read_card(content: Mapping[str, Any], path: str | Path) -> Card:
    """Returns the card of a checkpoint's content.

    Raises:
        WeightsError: it has none, or a damaged one; the message names `path`.
    """
    card = content.get(CARD_KEY)
    if not isinstance(card, Mapping):
        raise WeightsError(
            f"{path}: names neither its model nor its classes; "
            "give a checkpoint that `spanets train` wrote"
        )
    try:
        _Counter().check(card)
    except ValueError as error:
        raise WeightsError(f"{path}: damaged, its card holds {error}") from None
    if card.get("format") != FORMAT:
        raise WeightsError(
            f"{path}: written in format {card.get('format')!r}, this version reads {FORMAT}; "
            "update spanets"
        )
    card = {"head": {}, **card}  # files of version 0.1 have none
    types = {name: get_origin(kind) or kind for name, kind in get_type_hints(Card).items()}
    wrong = [name for name, kind in types.items() if not isinstance(card.get(name), kind)]
    if not wrong and not all(isinstance(name, str) for name in card["classes"]):
        wrong = ["classes"]
    if wrong or not card["classes"]:
        raise WeightsError(f"{path}: damaged, without {', '.join(wrong or ['classes'])}")
    found = Card(**{name: card[name] for name in types})
    _check_preprocessing(found, path)
    return found


class _Counter:
    """Goes through nested values, and counts them: what is shared counts each time."""

    def __init__(self) -> None:
        self.left = _MAX_VALUES

    def check(self, value: Any, depth: int = 0) -> None:
        """Raises a ValueError for other than plain values, too many, too deep or too large ones."""
        self.left -= 1
        if self.left < 0 or depth > _MAX_DEPTH:
            raise ValueError("more values than any card needs")
        if isinstance(value, Mapping):
            if not all(isinstance(key, str) for key in value):
                raise ValueError("a key that is no text")
            value = [part for pair in value.items() for part in pair]
        if isinstance(value, list | tuple):
            for part in value:
                self.check(part, depth + 1)
        elif isinstance(value, str):
            if len(value) > _MAX_TEXT:
                raise ValueError("an endless text")
        elif isinstance(value, int):
            if not -(2**63) <= value < 2**64:
                raise ValueError("an integer of more than 64 bits")
        elif value is not None and not isinstance(value, float):
            raise ValueError(f"a {type(value).__name__}")


def _check_preprocessing(card: Card, path: str | Path) -> None:
    """Raises a WeightsError for preprocessing that no recipe of the task can have."""
    values = {k: v for k, v in card.preprocessing.items() if k not in _OF_MASKS}
    if "short_side" in values:  # training has sides of its own, which are compared with these
        values["train_short_sides"] = [values["short_side"]] * 2
    try:
        if not values.keys() <= _PREPROCESSING:
            raise KeyError(min(values.keys() - _PREPROCESSING, key=str))
        if "input_size" in values:
            values[_SIDE_KEYS[card.task]] = values.pop("input_size")[-1]
        if values:
            parse_recipe({"task": card.task, "data": values}, origin="preprocessing")
    except (UsageError, KeyError, IndexError, TypeError) as error:
        raise WeightsError(f"{path}: damaged preprocessing ({error})") from None
