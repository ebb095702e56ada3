"""Values as people write them, in YAML or as a word, turned into the types that keys take."""

import re
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from spanets_runtime.errors import UsageError, nearest

_NOUNS = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a text",
    NoneType: "null",
}


class _Loader(yaml.SafeLoader):
    """PyYAML reads numbers as YAML 1.1 did, and 1e-3 as a text; this one as YAML 1.2 does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"),
    list("-+.0123456789"),
)


def load_yaml(text: str, origin: str) -> Any:
    """Reads a YAML text.

    Raises:
        UsageError: it is not YAML; the message names `origin` and the line.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise UsageError(f"{origin}: is not YAML ({line}{problem})") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{origin}: is not YAML ({error})") from None


def read_word(text: str) -> list[Any]:
    """Returns what a word of the command line may mean, first its meaning in YAML."""
    try:
        return [yaml.load(text, _Loader), text]
    # PyYAML's own, and those of what looks like a date, or like a list without end.
    except (yaml.YAMLError, ValueError, RecursionError):
        return [text]


def convert(value: Any, wanted: Any) -> Any:
    """Returns a value as a type: a plain one, a `Literal`, a union, a tuple or a dict.

    Raises:
        TypeError: it is no such value.
    """
    if wanted is Any:
        return value
    if wanted is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise TypeError from None
    if wanted in _NOUNS and type(value) is wanted:  # a bool is no int here
        return value
    kind, options = get_origin(wanted), get_args(wanted)
    if kind is Literal and value in options:
        return value
    if kind in (Union, UnionType):
        return _convert_to_one_of(value, options)
    if kind is dict and isinstance(value, dict):
        of_key, of_value = options
        return {convert(key, of_key): convert(inner, of_value) for key, inner in value.items()}
    if kind is tuple and isinstance(value, list | tuple) and len(value) == len(options):
        return tuple(convert(item, option) for item, option in zip(value, options, strict=True))
    raise TypeError


def _convert_to_one_of(value: Any, options: tuple[Any, ...]) -> Any:
    for option in options:
        try:
            return convert(value, option)
        except TypeError:
            continue
    raise TypeError


def describe_wanted(value: Any, wanted: Any) -> str:
    """Says what a type allows, and for a choice which is the nearest to a wrong value."""
    kind, options = get_origin(wanted), get_args(wanted)
    if kind is Literal:
        return f"allowed: {', '.join(options)}{nearest(str(value), options)}"
    if kind is tuple:
        example = ", ".join(["0.5"] * len(options))
        return f"must be a list of {len(options)} numbers, such as [{example}]"
    if kind is dict:
        return "must hold words as keys, such as {drop_path_rate: 0.1}"
    return f"must be {' or '.join(_noun(option) for option in options or (wanted,))}"


def _noun(wanted: Any) -> str:
    if get_origin(wanted) is dict:
        return "a map of whole numbers, such as {0: 0, 255: 1}"
    return _NOUNS.get(wanted) or " or ".join(get_args(wanted))
