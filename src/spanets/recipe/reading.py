"""Reads recipes from YAML and the command line, with helpful errors.

Every key can be set on the command line: `--optim.lr 1e-3`. The key's type decides how a word there
is read: a text is taken literally, a number is decimal. If a key is repeated, the last one counts.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from importlib import resources
from operator import attrgetter
from pathlib import Path
from typing import Any

from spanets.recipe.bounds import MOST_CHARACTERS, check_plain
from spanets.recipe.keys import Range, read_keys, read_sections
from spanets.recipe.preprocessing import settle_preprocessing
from spanets.recipe.sections import Recipe
from spanets.recipe.trust import check_places
from spanets.recipe.values import convert, describe_wanted, read_word
from spanets.recipe.yaml_text import describe_twice, key_lines, load_yaml
from spanets.tasks import DEFAULT_TASK, load_task
from spanets_runtime.arrays import PIXEL_KEYS
from spanets_runtime.errors import UsageError, UserError, nearest
from spanets_runtime.reading import read_text_file
from spanets_runtime.text import shorten


def list_recipes() -> list[str]:
    """Returns the names of the recipes that come with the package."""
    with resources.as_file(resources.files("spanets") / "recipes") as folder:
        files = sorted(folder.rglob("*.yaml"))
        return [path.relative_to(folder).with_suffix("").as_posix() for path in files]


def load_recipe(name: str, overrides: Sequence[str] = (), trusted: bool = False) -> Recipe:
    """Reads a recipe by name or path, and applies the keys given on the command line.

    Args:
        name: A name from `list_recipes`, or the path of a YAML file.
        overrides: Command-line words: `["--optim.lr", "1e-3", "--trainer.epochs=5"]`.
        trusted: Whether the file may set URLs and output folders; see `recipe.trust`.

    Raises:
        UsageError: an unknown recipe, key or value, with the nearest valid name; or an
            untrusted file sets a URL or output folder.
    """
    recipe = parse_recipe(_read(name), overrides, origin=name)
    if not trusted:
        check_places(recipe, name, {key for key, _ in _pair_words(overrides, type(recipe))})
    return recipe


def parse_recipe(
    values: Mapping[Any, Any], overrides: Sequence[str] = (), origin: str = "recipe"
) -> Recipe:
    """Builds a recipe from nested values and command-line words, which take precedence.

    Args:
        values: Nested values as in a YAML file; missing keys have their defaults.
        overrides: Command-line words; see `load_recipe`.
        origin: Source of the values, for messages.

    Raises:
        UsageError: an unknown key, or a value of another type or out of range.
    """
    check_plain(values, origin)
    recipe = _recipe_type(values, origin)()
    given: set[str] = set()
    words: set[str] = set()
    for key, value in _flatten(values, origin).items():
        _set_value(recipe, key, value, f"{origin}: ")
        given.add(key)
    for key, text in _pair_words(overrides, type(recipe)):
        _set_word(recipe, key, text)
        words.add(key)
    _check_ranges(recipe)
    recipe.model.check()
    recipe.data.check()
    recipe.optim.check()
    recipe.optim.check_rates(words)  # recipes that were written before this check stay valid
    settle_preprocessing(recipe, given | words)
    return recipe


def describe_repeated(overrides: Sequence[str], kind: type[Recipe]) -> list[str]:
    """Returns a note for each key that the command line sets more than once; the last counts."""
    pairs = list(_pair_words(overrides, kind))
    counts, last = Counter(key for key, _ in pairs), dict(pairs)
    notes = [
        f"--{key} is given {count} times; the last one counts: {shorten(last[key])}"
        for key, count in counts.items()
        if count > 1
    ]
    whole = max((i for i, (key, _) in enumerate(pairs) if key == "model.args"), default=0)
    replaced = dict.fromkeys(key for key, _ in pairs[:whole] if key.startswith("model.args."))
    return [*notes, *(f"--{key} is replaced by --model.args, given later" for key in replaced)]


def _recipe_type(values: Mapping[Any, Any], origin: str) -> type[Recipe]:
    try:
        return load_task(values.get("task", DEFAULT_TASK)).recipe_type
    except UsageError as error:
        raise UsageError(f"{origin}: {error}") from None


def _read(name: str) -> dict[str, Any]:
    """Returns the values of a recipe by dotted key, including those of the recipe it extends."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        text = _read_file(path)
    elif name in list_recipes():
        text = (resources.files("spanets") / "recipes" / f"{name}.yaml").read_text("utf-8")
    else:
        known = list_recipes()
        hint = nearest(name, known) or f"; known are {', '.join(known)}"
        raise UsageError(f"unknown recipe {shorten(repr(name))}{hint} (or give a .yaml file)")
    values = load_yaml(text, name)
    if not isinstance(values, dict):
        raise UsageError(f"{name}: holds no keys; see `spanets train elpv --print-recipe`")
    for key, lines in key_lines(text, name).items():
        if len(lines) > 1:
            raise UsageError(f"{name}: {describe_twice(key, lines)}")
    base = values.pop("extends", None)
    own = _flatten(values, name)
    return own if base is None else _put_over(_read_base(base, name), own)


def _read_file(path: Path) -> str:
    try:
        return read_text_file(path, MOST_CHARACTERS)
    except UserError as error:  # a wrong path is an error in the command
        raise UsageError(str(error)) from None


def _read_base(base: Any, name: str) -> dict[str, Any]:
    # Only recipes of the package can be extended, so that there are no loops.
    if base not in list_recipes() or base == name:
        hint = nearest(str(base), list_recipes())
        raise UsageError(f"{name}: extends is {_show(base)}, must be a recipe of the package{hint}")
    return _read(base)


def _put_over(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `base` updated by `own`; an own `model.args` replaces all arguments of the base."""
    kept = dict(base)
    if "model.args" in own:
        kept = {key: value for key, value in base.items() if not key.startswith("model.args.")}
    elif isinstance(arguments := base.get("model.args"), Mapping):
        kept["model.args"] = {
            key: value for key, value in arguments.items() if f"model.args.{key}" not in own
        }
    return {**kept, **own}


def _flatten(values: Mapping[Any, Any], origin: str) -> dict[str, Any]:
    """Returns the values by dotted key.

    Raises:
        UsageError: a section is not a mapping, or a key is given twice.
    """
    flat: dict[str, Any] = {}
    for key, value in _pairs(values, origin):
        if key in flat:
            raise UsageError(f"{origin}: {key} is given twice; keep one of them")
        flat[key] = value
    arguments = flat.get("model.args")
    for key in arguments if isinstance(arguments, Mapping) else ():
        if f"model.args.{key}" in flat:
            raise UsageError(f"{origin}: model.args.{key} is given twice; keep one of them")
    # `model.args` comes before single arguments, which would otherwise be overwritten.
    return dict(sorted(flat.items(), key=lambda pair: pair[0].startswith("model.args.")))


def _pairs(values: Mapping[Any, Any], origin: str) -> Iterator[tuple[str, Any]]:
    sections = read_sections(Recipe)
    inner_sections = {name.rpartition(".")[0] for name in read_keys(Recipe)} - sections.keys()
    others = {item.name for item in fields(Recipe)} - sections.keys()
    for key, value in values.items():
        is_own = key not in others and "." not in str(key)
        if isinstance(value, Mapping) and (key in sections or (value and is_own)):
            # A section, perhaps one that only some tasks have.
            for inner, inner_value in value.items():
                if (dotted := f"{key}.{inner}") not in inner_sections:
                    yield dotted, inner_value
                    continue
                if not isinstance(inner_value, Mapping):
                    raise UsageError(f"{origin}: {dotted} is {_show(inner_value)}, must hold keys")
                yield from ((f"{dotted}.{name}", given) for name, given in inner_value.items())
        elif key in sections:
            raise UsageError(
                f"{origin}: {key} is {_show(value)}, must hold keys, as in the other recipes"
            )
        else:
            yield str(key), value


def _pair_words(words: Sequence[str], kind: type[Recipe]) -> Iterator[tuple[str, str]]:
    """Yields the keys and texts of `--key value` and `--key=value`."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise UsageError(f"unexpected argument {word!r}; keys are given as --key VALUE")
        key, equals, value = word.removeprefix("--").partition("=")
        key = key.replace("-", "_")
        _check_key(kind, key, "--")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UsageError(f"--{key} needs a value")
            value = rest.pop(0)
        yield key, value


def known_keys(kind: type[Recipe]) -> dict[str, Any]:
    """Returns the type of every key of a kind of recipe, by its dotted name."""
    return {name: key.type for name, key in read_keys(kind).items()}


def known_ranges(kind: type[Recipe]) -> dict[str, Range]:
    """Returns the range of every numeric key of a kind of recipe."""
    return {name: key.between for name, key in read_keys(kind).items() if key.between}


def _check_key(kind: type[Recipe], key: str, where: str) -> None:
    known = read_keys(kind)
    # model.args may have any key.
    if key in known or key.startswith("model.args."):
        return
    if key.removeprefix("data.") in PIXEL_KEYS:
        raise UsageError(
            f"{where}{key}: is for tasks on whole images; {kind().task} reads 8-bit RGB only"
        )
    # The most likely mistake is a missing or wrong section.
    tail = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
    close = tail or get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise UsageError(f"{where}{key}: unknown key{hint}")


def _set_value(recipe: Recipe, key: str, value: Any, where: str) -> None:
    """Sets a key to a value from a file, converted to its type."""
    wanted = _wanted(recipe, key, where)
    try:
        converted = convert(value, wanted)
    except TypeError:
        wrong = f"{where}{key} is {_show(value)}, {describe_wanted(value, wanted)}"
        raise UsageError(wrong) from None
    # An empty path would mean the current folder.
    if converted == "" and wanted == str | None:
        raise UsageError(f"{where}{key} is empty; leave it out, or write null")
    _set(recipe, key, converted)


def _set_word(recipe: Recipe, key: str, text: str) -> None:
    """Sets a key to a word from the command line, converted to its type."""
    wanted, origin = _wanted(recipe, key, "--"), f"--{key}"
    check_plain(text, origin)
    if not text:
        raise UsageError(f"{origin} is empty; leave it out, or give a value")
    try:
        value = read_word(text, wanted, origin)
    except TypeError:
        wrong = f"{origin} is {_show(text)}, {describe_wanted(text, wanted)}"
        raise UsageError(wrong) from None
    _set(recipe, key, value)


def _wanted(recipe: Recipe, key: str, where: str) -> Any:
    """Returns the type of a key, `Any` for arguments of the model."""
    _check_key(type(recipe), key, where)
    known = read_keys(type(recipe)).get(key)
    return known.type if known else Any


def _set(recipe: Recipe, key: str, value: Any) -> None:
    if key.startswith("model.args."):
        recipe.model.args[key.removeprefix("model.args.")] = value
        return
    section, _, name = key.rpartition(".")
    setattr(attrgetter(section)(recipe) if section else recipe, name, value)


def _show(value: Any) -> str:
    return shorten(repr(value))


def _check_ranges(recipe: Recipe) -> None:
    for key, (low, high) in known_ranges(type(recipe)).items():
        value = attrgetter(key)(recipe)
        numbers = value if isinstance(value, tuple | list) else (value,)
        for number in numbers:
            if isinstance(number, int | float) and not low <= number <= high:
                shown = shorten(str(number))
                raise UsageError(f"{key} is {shown}, allowed: {low} to {high}")


def read_recipe_values(name: str) -> dict[str, Any]:
    """Returns the values of a recipe, with those of the recipe it extends, by dotted key.

    Raises:
        UsageError: see `load_recipe`.
    """
    return _read(name)


def change_values(
    values: Mapping[str, Any], changes: Mapping[Any, Any], origin: str
) -> dict[str, Any]:
    """Returns values by dotted key, updated by others, which may be nested.

    Raises:
        UsageError: a key is given twice.
    """
    check_plain(changes, origin)
    return _put_over(values, _flatten(changes, origin))
