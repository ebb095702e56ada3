"""Declares the keys of a recipe, each once, as a field of its section.

    workers: int = key(2, "Worker processes that load images.", between=(0, 1024))

The YAML reader, the command line, error messages, `--print-recipe` and docs/recipe-keys.md use this
declaration. A subclass that changes only the default writes `workers: int = 4` and inherits the
rest.

No library replaces this code. pydantic 2.14 drops help and range if a subclass changes a default.
jsonargparse 4.53 reads `010` as 8, accepts a repeated key and expands aliases without limit.
Neither suggests the nearest key, reports errors in one line or supports `extends`.
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
    """The declaration of a key.

    Attributes:
        name: Dotted name, such as "optim.lr".
        type: Type of its values.
        default: Default value.
        help: Description of its effect.
        between: Smallest and largest allowed number, for each number of a list; or None.
    """

    name: str
    type: Any
    default: Any
    help: str
    between: Range | None


def key(default: Any, help: str, between: Range | None = None, open: bool = False) -> Any:
    """Declares a key, as the default of a dataclass field.

    Args:
        default: Default value; a dict is copied for each recipe.
        help: Description: effect, unit, meaning of null.
        between: Smallest and largest allowed number; a subclass inherits them.
        open: Whether a recipe may leave the key open by null; see `settle_preprocessing`.
    """
    known: dict[str, Any] = {"help": help}
    if between is not None:
        known["between"] = between
    if open:
        known["open"] = True
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=known)
    return field(default=default, metadata=known)


def read_keys(kind: type) -> Mapping[str, Key]:
    """Returns every key of a kind of recipe by dotted name, keys outside of sections first."""
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


# mypy regards dataclass types as unhashable, and rejects a direct `@cache`.
_read_keys: Callable[[Any], Mapping[str, Key]] = cache(_read_all)


def _own_keys(kind: Any, prefix: str = "") -> dict[str, Key]:
    """Returns the keys of a dataclass by dotted name; a recipe's without those of its sections."""
    types, defaults = _field_types(kind), kind()
    keys: dict[str, Key] = {}
    for name, known in _inherited_metadata(kind).items():
        if is_dataclass(types[name]) and prefix:  # a section inside of one
            keys |= _own_keys(types[name], f"{prefix}{name}.")
        elif not is_dataclass(types[name]):
            value, text = getattr(defaults, name), known.get("help", "")
            dotted = prefix + name
            wanted = types[name] | None if known.get("open") else types[name]
            keys[dotted] = Key(dotted, wanted, value, text, known.get("between"))
    return keys


def _inherited_metadata(kind: type) -> dict[str, dict[str, Any]]:
    """Returns the metadata of each field, inherited from parent classes where not declared."""
    known: dict[str, dict[str, Any]] = {}
    for parent in reversed(kind.__mro__):
        for item in fields(parent) if is_dataclass(parent) else ():
            known.setdefault(item.name, {}).update(item.metadata)
    return known


def _field_types(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {item.name: hints[item.name] for item in fields(kind)}
