"""Reads recipes from YAML and the command line, and says what is wrong with one.

Every key can be set on the command line: `--optim.lr 1e-3`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

from spanets.recipe.classification import ClassificationRecipe
from spanets.recipe.detection import DetectionRecipe
from spanets.recipe.sections import Recipe
from spanets.recipe.segmentation import SegmentationRecipe
from spanets.recipe.trust import check_places
from spanets.values import convert, describe_wanted, load_yaml, read_word
from spanets_runtime.errors import UsageError, nearest

# By the value of the key `task`; the first is meant where a recipe does not say.
RECIPES: dict[str, type[Recipe]] = {
    "classification": ClassificationRecipe,
    "detection": DetectionRecipe,
    "segmentation": SegmentationRecipe,
}


def list_recipes() -> list[str]:
    """Returns the names of the recipes that come with the package."""
    with resources.as_file(resources.files("spanets") / "recipes") as folder:
        files = sorted(folder.rglob("*.yaml"))
        return [path.relative_to(folder).with_suffix("").as_posix() for path in files]


def load_recipe(name: str, overrides: Sequence[str] = (), trusted: bool = False) -> Recipe:
    """Reads a recipe by name or path, and sets the keys given on the command line.

    Args:
        name: A name of `list_recipes`, or a YAML file.
        overrides: Command-line words: `["--optim.lr", "1e-3", "--trainer.epochs=5"]`.
        trusted: Let the file name addresses and folders to write to; see `recipe.trust`.

    Raises:
        UsageError: an unknown recipe, key or value, with the nearest right name; or a file that
            decides where data are fetched from or written to.
    """
    recipe = parse_recipe(_read(name), overrides, origin=name)
    if not trusted:
        check_places(recipe, name, {key for key, _ in _pair_words(overrides, type(recipe))})
    return recipe


def parse_recipe(
    values: Mapping[Any, Any], overrides: Sequence[str] = (), origin: str = "recipe"
) -> Recipe:
    """Builds a recipe from nested values and command-line words, which come last.

    Args:
        values: As in a YAML file; what is left out has its default.
        overrides: Command-line words, as for `load_recipe`.
        origin: Where the values are from, for messages.

    Raises:
        UsageError: an unknown key, or a value of another type or out of range.
    """
    recipe = _recipe_type(values, origin)()
    for key, value in _flatten(values, origin):
        _set(recipe, key, [value], f"{origin}: ")
    for key, text in _pair_words(overrides, type(recipe)):
        _set(recipe, key, read_word(text), "--")
    _check_ranges(recipe)
    recipe.data.check()
    recipe.optim.check()
    return recipe


def _recipe_type(values: Mapping[Any, Any], origin: str) -> type[Recipe]:
    task = values.get("task", next(iter(RECIPES)))
    if not isinstance(task, str) or task not in RECIPES:
        allowed = f"{', '.join(RECIPES)}{nearest(str(task), RECIPES)}"
        raise UsageError(f"{origin}: task is {task!r}, allowed: {allowed}")
    return RECIPES[task]


def _read(name: str) -> dict[Any, Any]:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        text = _read_text(path)
    elif name in list_recipes():
        text = (resources.files("spanets") / "recipes" / f"{name}.yaml").read_text("utf-8")
    else:
        known = list_recipes()
        hint = nearest(name, known) or f"; known are {', '.join(known)}"
        raise UsageError(f"unknown recipe {name!r}{hint} (or give a .yaml file)")
    values = load_yaml(text, name)
    if not isinstance(values, dict):
        raise UsageError(f"{name}: holds no keys; see `spanets train elpv --print-recipe`")
    base = values.pop("extends", None)
    return values if base is None else _merge(_read_base(base, name), values)


def _read_base(base: Any, name: str) -> dict[Any, Any]:
    # Only recipes of the package can be extended, and those end somewhere: no loops.
    if base not in list_recipes() or base == name:
        hint = nearest(str(base), list_recipes())
        raise UsageError(f"{name}: extends is {base!r}, must be a recipe of the package{hint}")
    return _read(base)


def _merge(base: Mapping[Any, Any], values: Mapping[Any, Any]) -> dict[Any, Any]:
    """Sections of `values` over those of `base`, key by key."""
    merged = dict(base)
    for key, value in values.items():
        both = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        merged[key] = {**base[key], **value} if both else value
    return merged


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such recipe file") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not a text file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None


def _flatten(values: Mapping[Any, Any], origin: str) -> Iterator[tuple[str, Any]]:
    """Yields dotted keys with their values: those of a section, and those of no section."""
    sections = {name for name, kind in _field_types(Recipe).items() if is_dataclass(kind)}
    for key, value in values.items():
        if key not in sections:
            yield str(key), value
        elif isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", inner_value) for inner, inner_value in value.items())
        else:
            raise UsageError(
                f"{origin}: {key} is {value!r}, must hold keys, as in the other recipes"
            )


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
    """Returns every key of a kind of recipe in dotted form, with its type."""
    keys: dict[str, Any] = {}
    for name, inner in _field_types(kind).items():
        if is_dataclass(inner):
            keys |= {f"{name}.{key}": value for key, value in _field_types(inner).items()}
        else:
            keys[name] = inner
    return keys


def known_ranges(kind: type[Recipe]) -> dict[str, tuple[float, float]]:
    """Returns the smallest and largest value of every number of a kind of recipe."""
    ranges = dict(kind.RANGES)
    for name, inner in _field_types(kind).items():
        of_section = getattr(inner, "RANGES", {})
        ranges |= {f"{name}.{key}": pair for key, pair in of_section.items()}
    return ranges


def _field_types(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _check_key(kind: type[Recipe], key: str, where: str) -> None:
    known = known_keys(kind)
    # model.args holds the model's own keys.
    if key in known or key.startswith("model.args."):
        return
    # A key given without its section, or with a wrong one, is the likeliest slip.
    tail = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
    close = tail or get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise UsageError(f"{where}{key}: unknown key{hint}")


def _set(recipe: Recipe, key: str, readings: Sequence[Any], where: str) -> None:
    """Sets a key to the first reading that has its type."""
    _check_key(type(recipe), key, where)
    if key.startswith("model.args."):
        recipe.model.args[key.removeprefix("model.args.")] = readings[0]
        return
    wanted = known_keys(type(recipe))[key]
    section, _, name = key.rpartition(".")
    for value in readings:
        try:
            converted = convert(value, wanted)
        except TypeError:
            continue
        setattr(getattr(recipe, section) if section else recipe, name, converted)
        return
    raise UsageError(f"{where}{key} is {readings[-1]!r}, {describe_wanted(readings[-1], wanted)}")


def _check_ranges(recipe: Recipe) -> None:
    for key, (low, high) in known_ranges(type(recipe)).items():
        section, _, name = key.rpartition(".")
        value = getattr(getattr(recipe, section) if section else recipe, name)
        numbers = value if isinstance(value, tuple) else (value,)
        for number in numbers:
            if isinstance(number, int | float) and not low <= number <= high:
                raise UsageError(f"{key} is {number}, allowed: {low} to {high}")
