"""Converts values from YAML and words from the command line to the types of keys."""

import math
import re
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from spanets.recipe.bounds import MOST_DIGITS, check_plain
from spanets.recipe.yaml_text import load_yaml
from spanets_runtime.errors import nearest

_NOUNS = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a text",
    NoneType: "null",
}

# Decimal numbers; digits may be grouped, as in 1_000.
_DIGITS = "[0-9]+(?:_[0-9]+)*"
_WHOLE = re.compile(rf"[-+]?{_DIGITS}")
_NUMBER = re.compile(rf"[-+]?(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][-+]?{_DIGITS})?")

_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")
_NULL = ("null", "none")


# ---- words of a command


def read_word(text: str, wanted: Any, origin: str) -> Any:
    """Converts a word of the command line to a type; a text is taken literally.

    Args:
        text: The word.
        wanted: A plain type, a `Literal`, a union, a tuple, a dict, or `Any`.
        origin: Name of the option, for messages.

    Raises:
        TypeError: the word does not have this type.
        UsageError: the word, for a dict or `Any`, is invalid YAML.
    """
    kind, options = get_origin(wanted), get_args(wanted)
    if kind in (Union, UnionType):
        return _read_one_of(text, options, origin)
    if wanted is Any:
        return _read_any(text, origin)
    if wanted is str:
        return text
    if kind is dict:
        return convert(_read_yaml(text, origin), wanted)
    if kind is Literal and text in options:
        return text
    if kind is tuple:
        return _read_tuple(text, options, origin)
    if kind is list:
        return [read_word(item, options[0], origin) for item in _read_items(text)]
    return _read_scalar(text.strip(), wanted)


def _read_one_of(text: str, options: tuple[Any, ...], origin: str) -> Any:
    # Every word is a valid text, so try `str` last.
    for option in sorted(options, key=lambda option: option is str):
        try:
            return read_word(text, option, origin)
        except TypeError:
            continue
    raise TypeError


def _read_scalar(text: str, wanted: Any) -> Any:
    folded = text.lower()
    if wanted is NoneType and folded in _NULL:
        return None
    if wanted is bool and folded in (*_TRUE, *_FALSE):
        return folded in _TRUE
    if wanted is int and _WHOLE.fullmatch(text) and len(text) <= MOST_DIGITS:
        return int(text)
    if wanted is float and _NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    raise TypeError


def _read_tuple(text: str, options: tuple[Any, ...], origin: str) -> tuple[Any, ...]:
    items = _read_items(text)
    if options[-1] is Ellipsis:
        options = (options[0],) * len(items)
    if len(items) != len(options):
        raise TypeError
    pairs = zip(items, options, strict=True)
    return tuple(read_word(item, option, origin) for item, option in pairs)


def _read_items(text: str) -> list[str]:
    """Splits `[1, 2]`, `(1, 2)` and `1, 2`.

    Raises:
        TypeError: an item is empty, a list, or begins one.
    """
    inner = text.strip()
    if (inner[:1], inner[-1:]) in (("[", "]"), ("(", ")")):
        inner = inner[1:-1]
    items = [item.strip() for item in inner.split(",")]
    if any(not item or item[0] == "[" or item[-1] == "]" for item in items):
        raise TypeError
    return items


def _read_any(text: str, origin: str) -> Any:
    """Reads a word for a key of any type: a scalar, a list, a dict or a quoted text."""
    if text.lstrip()[:1] in ("[", "{", '"', "'"):
        return _read_yaml(text, origin)
    for kind in (NoneType, bool, int, float):
        try:
            return _read_scalar(text.strip(), kind)
        except TypeError:
            continue
    return text


def _read_yaml(text: str, origin: str) -> Any:
    value = load_yaml(text, origin, word=True)
    check_plain(value, origin)
    return value


# ---- values of a file


def convert(value: Any, wanted: Any) -> Any:
    """Converts a value to a plain type, a `Literal`, a union, a tuple or a dict.

    Raises:
        TypeError: the value does not have this type.
    """
    if wanted is Any:
        return value
    if wanted is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise TypeError from None
    if wanted in _NOUNS and type(value) is wanted:  # not isinstance: a bool is not an int here
        return value
    kind, options = get_origin(wanted), get_args(wanted)
    if kind is Literal and value in options:
        return value
    if kind in (Union, UnionType):
        return _convert_to_one_of(value, options)
    if kind is dict and isinstance(value, dict):
        of_key, of_value = options
        return {convert(key, of_key): convert(inner, of_value) for key, inner in value.items()}
    if kind is tuple and options[-1] is Ellipsis:
        # A single number stands for a list of one.
        values = value if isinstance(value, list | tuple) else [value]
        if not values:
            raise TypeError
        return tuple(convert(item, options[0]) for item in values)
    if kind is tuple and isinstance(value, list | tuple) and len(value) == len(options):
        return tuple(convert(item, option) for item, option in zip(value, options, strict=True))
    if wanted == list[str] and isinstance(value, list | tuple):
        value = [str(item) if type(item) is int else item for item in value]  # such as [0, 1, 2]
    if kind is list and isinstance(value, list | tuple) and value:
        return [convert(item, options[0]) for item in value]
    raise TypeError


def _convert_to_one_of(value: Any, options: tuple[Any, ...]) -> Any:
    for option in options:
        try:
            return convert(value, option)
        except TypeError:
            continue
    raise TypeError


def describe_wanted(value: Any, wanted: Any) -> str:
    """Describes the allowed values of a type; for a choice, suggests the nearest one."""
    kind, options = get_origin(wanted), get_args(wanted)
    filled = [option for option in options if option is not NoneType]
    if kind in (Union, UnionType) and len(filled) == 1 and get_origin(filled[0]):
        return describe_wanted(value, filled[0])  # null is rarely what was meant
    if kind is Literal:
        return f"allowed: {', '.join(options)}{nearest(str(value), options)}"
    if kind is tuple and options[-1] is Ellipsis:
        return "must be a number or a list of numbers, such as [0.5, 0.5, 0.5]"
    if kind is list and options[0] is str:
        return "must be a list of texts, such as [B02, B03]"
    if kind is tuple:
        example = ", ".join(["0.5"] * len(options))
        return f"must be a list of {len(options)} numbers, such as [{example}]"
    if kind is dict and options[1] is not Any:
        return "must be a map of texts, such as {path: file, label: species}"
    if kind is dict:
        return "must hold words as keys, such as {drop_path_rate: 0.1}"
    kinds = options or (wanted,)
    hint = "; put a text in quotes" if str in kinds and isinstance(value, int | float) else ""
    return f"must be {' or '.join(_noun(option) for option in kinds)}{hint}"


def _noun(wanted: Any) -> str:
    kind, options = get_origin(wanted), get_args(wanted)
    if kind is dict:
        return "a map of whole numbers, such as {0: 0, 255: 1}"
    if kind is list:
        texts = "a list of texts, such as [red, blue]"
        return texts if options[0] is str else "a list of numbers, such as [0.5, 2]"
    if kind is tuple and options[-1] is Ellipsis:
        return "a list of numbers"
    if kind is tuple:
        return f"a list of {len(options)} numbers"
    return _NOUNS.get(wanted) or " or ".join(options)
