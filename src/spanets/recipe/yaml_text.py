"""A safe subset of YAML: plain values within bounds, no repeated keys, no surprising numbers.

Numbers with an exponent follow YAML 1.2; `yes` and `1_000` follow YAML 1.1. Numbers that the two
versions read differently are refused. Dates are texts. Tags cannot create objects.
"""

import re
from typing import Any, ClassVar

import yaml

from spanets.recipe.bounds import (
    MOST_CHARACTERS,
    MOST_DIGITS,
    MOST_VALUES,
    BoundError,
    Extent,
    add_extents,
    check_depth,
)
from spanets_runtime.errors import UsageError
from spanets_runtime.text import shorten

_TAG = "tag:yaml.org,2002:"

# Patterns of plain scalars, with the characters that they may begin with.
_NULL = re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]
_BOOL = (
    re.compile(
        "yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
    ),
    list("yYnNtTfFoO"),
)
_INT = (
    re.compile(
        r"[-+]?(0b[01_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|[1-9][0-9_]*(:[0-5]?[0-9])+)"
    ),
    list("-+0123456789"),
)
_FLOAT = (
    re.compile(
        r"([-+]?[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+][0-9]+)?"
        r"|[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+"
        r"|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    ),
    list("-+.0123456789"),
)


def load_yaml(text: str, origin: str, word: bool = False) -> Any:
    """Reads a YAML text.

    Args:
        text: One YAML document.
        origin: Source of the text, for messages.
        word: Whether it is a word of the command line, which must be one line without a comment.

    Raises:
        UsageError: it is invalid YAML, repeats a key, or exceeds `bounds`.
    """
    loader = _open(text, origin)
    if word and ("\n" in text or _has_comment(text, origin)):
        raise UsageError(f"{origin} is {shorten(repr(text))}, must be one line without a comment")
    return _parse(loader, loader.get_single_data)


def key_lines(text: str, origin: str) -> dict[str, list[int]]:
    """Returns the line numbers, from 1, of the keys of a YAML text by dotted name.

    `optim: {lr: 1}` and `optim.lr: 1` are the same name.

    Raises:
        UsageError: see `load_yaml`.
    """
    loader = _open(text, origin)
    found: dict[str, list[int]] = {}
    _collect_lines(_parse(loader, loader.get_single_node), "", found)
    return found


def dump_yaml(values: Any, flat_lists: bool = False) -> str:
    """Returns plain nested values as YAML that `load_yaml` reads back unchanged.

    Args:
        values: Dicts, lists, texts, numbers, booleans and None, possibly nested.
        flat_lists: Whether to write `[1, 2]` instead of a line for each item.
    """
    dumper = _FlatListDumper if flat_lists else _Dumper
    return yaml.dump(values, Dumper=dumper, sort_keys=False)


class _ScalarError(yaml.YAMLError):
    """An ambiguous number, or a text that does not fit its tag."""


class _Loader(yaml.SafeLoader):
    """PyYAML's loader, restricted to plain values within `bounds`."""

    # PyYAML's own include dates, binary data and more; ours are added below.
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's name and kind)
    yaml_constructors: ClassVar[dict[Any, Any]] = {}

    def __init__(self, text: str, origin: str) -> None:
        super().__init__(text)
        self.origin = origin
        self.extents: dict[yaml.Node, Extent] = {}
        self.level = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Checks the number and depth of nodes, counting aliases as their targets."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            node: Any = super().compose_node(parent, index)
            if node not in self.extents:
                raise yaml.composer.ComposerError(None, None, "an alias within itself", mark)
            return node
        check_depth(self.level)
        self.level += 1
        node = super().compose_node(parent, index)
        self.level -= 1
        self.extents[node] = self._extent(node)
        if len(self.extents) > MOST_VALUES:
            raise BoundError(f"holds more than {MOST_VALUES:,} values")
        return node

    def _extent(self, node: Any) -> Extent:
        if isinstance(node, yaml.ScalarNode):
            return Extent(1, len(node.value))
        mapping = isinstance(node, yaml.MappingNode)
        parts = [part for pair in node.value for part in pair] if mapping else node.value
        return add_extents(self.extents[part] for part in parts)

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Refuses a repeated key, as YAML demands; PyYAML would take the last."""
        node = super().compose_mapping_node(anchor)
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            merge = key_node.tag == f"{_TAG}merge"
            key = "<<" if merge else self.construct_object(key_node)
            line = key_node.start_mark.line + 1
            if key in lines:
                raise UsageError(f"{self.origin}: {describe_twice(str(key), [lines[key], line])}")
            lines[key] = line
        return node


class _WordLoader(_Loader):
    """Detects comments, which PyYAML skips."""

    comment = False

    def scan_to_next_token(self) -> None:
        """Looks for a comment where PyYAML would skip it."""
        ahead = 0
        while self.peek(ahead) == " ":
            ahead += 1
        self.comment = self.comment or self.peek(ahead) == "#"
        super().scan_to_next_token()


class _Dumper(yaml.SafeDumper):
    """Quotes texts that `_Loader` would read as numbers, besides those of YAML 1.1."""


class _FlatListDumper(_Dumper):
    """Writes lists on one line."""

    def represent_list(self, data: Any) -> Any:
        """Represents a list in PyYAML's flow style."""
        return self.represent_sequence(f"{_TAG}seq", data, flow_style=True)


_FlatListDumper.add_representer(list, _FlatListDumper.represent_list)


def describe_twice(key: str, lines: list[int]) -> str:
    """Returns a message about a repeated key with its line numbers."""
    first, second = lines[:2]
    where = f"in lines {first} and {second}" if first != second else f"twice in line {first}"
    return f"{shorten(key)} stands {where}; keep one of them"


def _open(text: str, origin: str, kind: type[_Loader] = _Loader) -> _Loader:
    if len(text) > MOST_CHARACTERS:
        raise UsageError(f"{origin}: too large, more than {MOST_CHARACTERS:,} characters")
    try:
        return kind(text, origin)
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise UsageError(f"{origin}: is not YAML ({_problem(error)})") from None


def _parse(loader: _Loader, read: Any) -> Any:
    try:
        return read()
    except (_ScalarError, BoundError) as error:
        raise UsageError(f"{loader.origin}: {error}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{loader.origin}: is not YAML ({_problem(error)})") from None
    except (ValueError, OverflowError) as error:  # an escape beyond Unicode
        raise UsageError(f"{loader.origin}: is not YAML ({error})") from None


def _problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    line = f"line {mark.line + 1}: " if mark else ""
    return line + (getattr(error, "problem", None) or " ".join(str(error).split()))


def _has_comment(text: str, origin: str) -> bool:
    loader = _open(text, origin, _WordLoader)
    _parse(loader, loader.get_single_node)
    return loader.comment  # type: ignore[attr-defined]


def _collect_lines(node: Any, prefix: str, found: dict[str, list[int]]) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode):
            found.setdefault(f"{prefix}{key.value}", []).append(key.start_mark.line + 1)
            _collect_lines(value, f"{prefix}{key.value}.", found)


# ---- scalars

_BASE_60 = "is a number to the base 60 in YAML 1.1; write the number out, or quote a text"


def _construct_null(loader: _Loader, node: Any) -> None:
    _matching(loader, node, _NULL)


def _construct_bool(loader: _Loader, node: Any) -> bool:
    return _matching(loader, node, _BOOL).lower() in ("yes", "true", "on")


def _construct_int(loader: _Loader, node: Any) -> int:
    text = _matching(loader, node, _INT)
    digits = text.replace("_", "")
    if len(digits) > MOST_DIGITS:
        raise _wrong(node, "has too many digits")
    if ":" in digits:
        raise _wrong(node, _BASE_60)
    plain = digits.lstrip("+-")
    if plain[:2] in ("0b", "0x"):
        return int(digits, 0)
    if plain[0] == "0" and int(plain, 8) != int(plain):
        readings = f"{int(plain, 8)} in YAML 1.1 and {int(plain)} in YAML 1.2"
        raise _wrong(node, f"is {readings}; leave out the leading zero, or quote a text")
    return int(digits)


def _construct_float(loader: _Loader, node: Any) -> float:
    text = _matching(loader, node, _FLOAT).replace("_", "").lower()
    if ":" in text:
        raise _wrong(node, _BASE_60)
    if text.endswith(("inf", "nan")):
        return float(text.replace(".", ""))
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _wrong(node, "is beyond the numbers of a computer")
    return value


def _construct_text(loader: _Loader, node: Any) -> str:
    return loader.construct_scalar(node)


def _construct_other(_: _Loader, node: Any) -> None:
    raise yaml.constructor.ConstructorError(
        None,
        None,
        f"the tag {shorten(node.tag)} is not allowed, only plain values",
        node.start_mark,
    )


def _matching(loader: _Loader, node: Any, pattern: tuple[re.Pattern[str], list[str]]) -> str:
    """Returns the text of a scalar; a tag may have given it this kind, so the text is checked."""
    text: str = loader.construct_scalar(node)
    if not pattern[0].fullmatch(text):
        raise _wrong(node, f"does not fit its tag, {node.tag.removeprefix(_TAG)}")
    return text


def _wrong(node: Any, what: str) -> _ScalarError:
    return _ScalarError(f"line {node.start_mark.line + 1}: {shorten(repr(node.value))} {what}")


_PLAIN: dict[str, tuple[tuple[re.Pattern[str], list[str]], Any]] = {
    "null": (_NULL, _construct_null),
    "bool": (_BOOL, _construct_bool),
    "int": (_INT, _construct_int),
    "float": (_FLOAT, _construct_float),
}

for _name, ((_pattern, _first), _construct) in _PLAIN.items():
    _whole = re.compile(rf"(?:{_pattern.pattern})\Z")
    _Loader.add_implicit_resolver(_TAG + _name, _whole, _first)
    _Dumper.add_implicit_resolver(_TAG + _name, _whole, _first)
    _Loader.add_constructor(_TAG + _name, _construct)
_Loader.add_implicit_resolver(f"{_TAG}merge", re.compile(r"<<\Z"), ["<"])
_Containers: Any = yaml.SafeLoader
for _name, _construct in (
    ("str", _construct_text),
    ("seq", _Containers.construct_yaml_seq),
    ("map", _Containers.construct_yaml_map),
):
    _Loader.add_constructor(_TAG + _name, _construct)
_Loader.add_constructor(None, _construct_other)
