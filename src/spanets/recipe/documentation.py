"""Documents the keys of recipes: the YAML of `--print-recipe`, and the page docs/recipe-keys.md.

python -m spanets.recipe.documentation > docs/recipe-keys.md
python -m spanets.recipe.documentation --json > src/spanets_cli/recipe_keys.json
"""

import json
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from spanets.recipe.keys import Key, describe_section, read_keys, read_sections
from spanets.recipe.sections import Recipe
from spanets.recipe.yaml_text import dump_yaml
from spanets.tasks import list_tasks, load_task

_KINDS = {
    float: "number",
    int: "whole number",
    bool: "true or false",
    str: "text",
    dict: "map",
    NoneType: "null",
}
_WIDTH = 98  # characters in a comment line; sections add an indent of two

_INTRODUCTION = """\
# Keys of a recipe

Every key can be set in a recipe file and on the command line; [train.md](train.md) says how values
are written. A key that is left out has its default. The keys of `trainer` are
[the same for every task](#every-task).

```sh
spanets train elpv --print-recipe                    # all keys with their values, as a recipe
spanets train elpv --optim.lr 1e-3 --trainer.epochs 5
```

`make docs-keys` writes this page from the declarations in `src/spanets`. A range includes both its
ends and holds for each number of a list.
"""


def print_recipe(recipe: Recipe) -> str:
    """Returns a recipe as YAML, with a comment above each key, that reads back unchanged."""
    keys, sections = read_keys(type(recipe)), read_sections(type(recipe))
    parts = []
    for name, value in recipe.to_dict().items():
        if name in sections:
            parts.append(f"\n# {describe_section(sections[name])}\n{name}:\n")
            parts += [textwrap.indent(entry, "  ") for entry in _entries(keys, name, value)]
        else:
            parts.append(_entry(keys[name], name, value))
    return "".join(parts)


def _entries(keys: Mapping[str, Key], section: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Yields the keys of a section with their comments, and those of a section in it indented."""
    for name, value in values.items():
        dotted = f"{section}.{name}"
        if dotted in keys:
            yield _entry(keys[dotted], name, value)
        else:
            yield f"{name}:\n"
            yield from (textwrap.indent(entry, "  ") for entry in _entries(keys, dotted, value))


def _entry(key: Key, name: str, value: Any) -> str:
    allowed = _allowed(key)
    text = f"{key.help} [{', '.join(allowed)}]" if allowed else key.help
    comment = textwrap.fill(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")
    return f"{comment}\n{dump_yaml({name: value}, flat_lists=True)}"


def keys_page() -> str:
    """Returns the page of all keys as Markdown: a table for each section of each task."""
    kinds = {task: load_task(task).recipe_type for task in list_tasks()}
    shared = _shared_sections(kinds.values())
    parts = [_INTRODUCTION]
    for task, kind in kinds.items():
        parts.append(f"\n## {task.capitalize()}\n")
        own = (key for name, key in read_keys(kind).items() if "." not in name)
        parts.append(_table(own))
        for name, section in read_sections(kind).items():
            if name not in shared:
                parts.append(_section(f"{name} ({task})", name, section, kind))
    parts.append("\n## Every task\n")
    parts += [_section(name, name, section, kind) for name, section in shared.items()]
    return "".join(parts)


def _shared_sections(kinds: Iterable[type[Recipe]]) -> dict[str, type]:
    """Returns the sections that all kinds of recipes share."""
    first, *others = map(read_sections, kinds)
    return {
        name: section
        for name, section in first.items()
        if all(other.get(name) is section for other in others)
    }


def _section(title: str, name: str, section: type, kind: type[Recipe]) -> str:
    inside = (key for dotted, key in read_keys(kind).items() if dotted.startswith(f"{name}."))
    return f"\n### {title}\n\n{describe_section(section)}\n{_table(inside)}"


def _table(keys: Iterable[Key]) -> str:
    rows = [
        ("key", "type", "default", "allowed", "what it does"),
        ("---", "---", "---", "---", "---"),
        *(
            (
                f"`{key.name}`",
                _describe_kind(key.type),
                f"`{_show(key.default)}`",
                ", ".join(_allowed(key)),
                key.help.replace("|", r"\|"),
            )
            for key in keys
        ),
    ]
    return "\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _describe_kind(wanted: Any) -> str:
    kind, options = get_origin(wanted), get_args(wanted)
    if kind in (Union, UnionType):
        return " or ".join(map(_describe_kind, options))
    if kind is tuple and options[-1] is not Ellipsis:
        return f"list of {len(options)} {_KINDS[options[0]]}s"
    if kind in (list, tuple):
        return f"list of {_KINDS[options[0]]}s"
    return "word" if kind is Literal else _KINDS[kind or wanted]


def _allowed(key: Key) -> list[str]:
    """Returns the range and the allowed words of a key, if it has any."""
    ranges = [f"{key.between[0]} to {key.between[1]}"] if key.between else []
    return [*ranges, *_words(key)]


def _words(key: Key) -> list[str]:
    """Returns the allowed words of a key, if it has any."""
    options = (key.type,) if get_origin(key.type) is Literal else get_args(key.type)
    choices = [option for option in options if get_origin(option) is Literal]
    return [word for choice in choices for word in get_args(choice)]


def _show(value: Any) -> str:
    """Returns a value as a line of YAML."""
    return value if isinstance(value, str) else json.dumps(value)


def keys_json() -> str:
    """Returns every key of any task with its allowed words, for shell completion, as JSON."""
    words: dict[str, list[str]] = {}
    for task in list_tasks():
        for name, key in read_keys(load_task(task).recipe_type).items():
            words.setdefault(name, [])
            words[name] += [word for word in _words(key) if word not in words[name]]
    lines = (f"  {json.dumps(name)}: {json.dumps(words[name])}" for name in sorted(words))
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    print(keys_json() if "--json" in sys.argv else keys_page(), end="")
