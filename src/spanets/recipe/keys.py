"""Keys of a recipe, each declared once, as a field of its section.

    workers: int = key(2, "Processes that load images.", between=(0, 1024))

The YAML reader, the command line, the errors, `--print-recipe` and docs/recipe-keys.md read this
line. A subclass that changes only the default writes `workers: int = 4`, and inherits the rest.

The code is our own because the YAML reader and the messages would be our own on top of a library,
too: pydantic 2.14 drops help and range where a subclass changes a default, jsonargparse 4.53 reads
`010` as 8, takes the last of two equal keys and expands aliases without a bound, and neither names
the nearest key, answers in one line or knows `extends`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from inspect import getdoc
from types import MappingProxyType
from typing import Any, get_type_hints

Range = tuple[float, float]


@dataclass(frozen=True)
class Key:
    """All that is known about a key.

    Attributes:
        name: Dotted, such as "optim.lr".
        type: What its values are converted to.
        default: Of a recipe that leaves it out.
        help: What it does.
        between: Smallest and largest number, both allowed; of a list, each number's.
    """

    name: str
    type: Any
    default: Any
    help: str
    between: Range | None


def key(default: Any, help: str, between: Range | None = None) -> Any:
    """Declares a key, as the default of a dataclass field.

    Args:
        default: Of a plain run; a dict is copied for each recipe.
        help: Sentences: what it does, its unit, what null means.
        between: Smallest and largest number, both allowed; left out, a subclass inherits them.
    """
    known = {"help": help} if between is None else {"help": help, "between": between}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=known)
    return field(default=default, metadata=known)


def read_keys(kind: type) -> Mapping[str, Key]:
    """Returns every key of a kind of recipe by its dotted name, those of no section first."""
    return _read_keys(kind)


def read_sections(kind: type) -> Mapping[str, type]:
    """Returns the section types of a kind of recipe by their names."""
    types = _field_types(kind)
    return {name: types[name] for name in types if is_dataclass(types[name])}


def describe_section(section: type) -> str:
    """Returns the first line of a section's docstring."""
    return (getdoc(section) or "").partition("\n")[0]


def _read_all(kind: type) -> Mapping[str, Key]:
    keys = _own_keys(kind)
    for name, section in read_sections(kind).items():
        keys |= _own_keys(section, f"{name}.")
    return MappingProxyType(keys)


# mypy takes dataclass types for unhashable, so `@cache` would refuse them.
_read_keys: Callable[[Any], Mapping[str, Key]] = cache(_read_all)


def _own_keys(kind: Any, prefix: str = "") -> dict[str, Key]:
    """Returns the keys of a dataclass, but not those of its sections, by dotted name."""
    types, defaults, keys = _field_types(kind), kind(), {}
    for name, known in _inherited_metadata(kind).items():
        if not is_dataclass(types[name]):
            value, text = getattr(defaults, name), known.get("help", "")
            dotted = prefix + name
            keys[dotted] = Key(dotted, types[name], value, text, known.get("between"))
    return keys


def _inherited_metadata(kind: type) -> dict[str, dict[str, Any]]:
    """Returns what each field declares, or else what the nearest parent's field does."""
    known: dict[str, dict[str, Any]] = {}
    for parent in reversed(kind.__mro__):
        for item in fields(parent) if is_dataclass(parent) else ():
            known.setdefault(item.name, {}).update(item.metadata)
    return known


def _field_types(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {item.name: hints[item.name] for item in fields(kind)}
