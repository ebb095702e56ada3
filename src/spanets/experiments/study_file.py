"""Reads a study: what is varied, measured and claimed. docs/study.md describes the keys."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from spanets.experiments.measuring import NOTHING, WHAT, Measure
from spanets.experiments.verdicts import KINDS, Metric, Rule
from spanets.recipe import list_recipes
from spanets.recipe.bounds import MOST_CHARACTERS
from spanets.recipe.yaml_text import load_yaml
from spanets_runtime.errors import UsageError, UserError, nearest
from spanets_runtime.reading import read_text_file
from spanets_runtime.text import shorten

Levels = Mapping[str, str]
"""A level by factor."""

MOST_CELLS = 2000

_REQUIRED = ("question", "recipe", "factors", "seeds", "metric", "baseline", "rules")
_KEYS = (*_REQUIRED, "set", "split_by_seed", "measure")
_RULE_KEYS = ("name", "compare", "against", "metric", *KINDS)

# Names become parts of folder names, in which = and , separate them.
_NAME = re.compile(r"\w[\w.+-]{0,39}")


@dataclass(frozen=True)
class Study:
    """A study, checked as far as it can be without its recipe.

    Attributes:
        origin: Path of its file, for messages.
        text: Content of the file.
        question: What the study asks.
        recipe: Name or file of the recipe.
        set: Recipe keys of every cell.
        factors: Recipe keys by level and factor.
        seeds: Recipe seeds, one cell each.
        metric: What is compared.
        baseline: Levels that combinations are compared with; other factors stay as they are.
        rules: The claims.
        split_by_seed: Whether a seed also draws the split of the data.
        measure: What is measured of each trained network.
    """

    origin: str
    text: str
    question: str
    recipe: str
    set: Mapping[str, Any]
    factors: Mapping[str, Mapping[str, Mapping[str, Any]]]
    seeds: tuple[int, ...]
    metric: Metric
    baseline: Levels
    rules: tuple[Rule, ...]
    split_by_seed: bool = False
    measure: Measure = NOTHING

    def combinations(self) -> list[dict[str, str]]:
        """Returns every combination of levels."""
        names = list(self.factors)
        return [dict(zip(names, row, strict=True)) for row in product(*self.factors.values())]

    def design(self) -> dict[str, Any]:
        """Returns what the table and the verdicts are computed from, as plain values."""
        rules = [
            {
                "name": rule.name,
                rule.kind: rule.margin,
                "compare": dict(rule.compare),
                "against": dict(rule.against),
                **({"metric": asdict(rule.metric)} if rule.metric else {}),
            }
            for rule in self.rules
        ]
        return {
            "factors": {name: list(levels) for name, levels in self.factors.items()},
            "seeds": list(self.seeds),
            "metric": {"name": self.metric.name, "better": self.metric.better},
            "baseline": dict(self.baseline),
            "rules": rules,
        }


def read_study(path: str) -> Study:
    """Reads the file of a study.

    Raises:
        UsageError: it cannot be read, or a key or value is wrong; the message says what is allowed.
    """
    try:
        text = read_text_file(path, MOST_CHARACTERS)
    except UserError as error:  # a wrong path is an error in the command
        raise UsageError(str(error)) from None
    return parse_study(text, path)


def parse_study(text: str, origin: str) -> Study:
    """Reads the text of a study; see `read_study`."""
    values = load_yaml(text, origin)
    _check_keys(values, _KEYS, _REQUIRED, origin)
    recipe = _text(values["recipe"], f"{origin}: recipe")
    if not recipe.endswith((".yaml", ".yml")) and recipe not in list_recipes():
        raise UsageError(
            f"{origin}: recipe: unknown recipe {recipe!r}{nearest(recipe, list_recipes())} "
            "(or give a .yaml file)"
        )
    factors = _read_factors(values["factors"], f"{origin}: factors")
    seeds = _read_seeds(values["seeds"], f"{origin}: seeds")
    cells = math.prod(map(len, factors.values())) * len(seeds)
    if cells > MOST_CELLS:
        raise UsageError(f"{origin}: has {cells:,} cells, allowed: up to {MOST_CELLS:,}")
    baseline = _read_levels(values["baseline"], factors, f"{origin}: baseline")
    by_seed = values.get("split_by_seed", False)
    if not isinstance(by_seed, bool):
        raise _wrong(f"{origin}: split_by_seed", by_seed, "true or false")
    return Study(
        origin,
        text,
        _text(values["question"], f"{origin}: question"),
        recipe,
        _read_recipe_keys(values.get("set", {}), f"{origin}: set"),
        factors,
        seeds,
        _read_metric(values["metric"], f"{origin}: metric"),
        baseline,
        _read_rules(values["rules"], factors, baseline, f"{origin}: rules"),
        by_seed,
        _read_measure(values["measure"], f"{origin}: measure") if "measure" in values else NOTHING,
    )


def _read_factors(values: Any, where: str) -> dict[str, dict[str, dict[str, Any]]]:
    wanted = "factors by name, each with levels by name, each with recipe keys"
    if not isinstance(values, dict) or not values:
        raise _wrong(where, values, wanted)
    factors = {}
    for name, levels in values.items():
        if not isinstance(levels, dict) or not levels:
            raise _wrong(f"{where}: {name}", levels, "levels by name, each with recipe keys")
        factors[_name(name, where)] = {
            _name(level, f"{where}: {name}"): _read_recipe_keys(keys, f"{where}: {name}: {level}")
            for level, keys in levels.items()
        }
        if len(factors[str(name)]) < len(levels):
            raise UsageError(f"{where}: {name}: two levels have one name; rename one")
    if len(factors) < len(values):
        raise UsageError(f"{where}: two factors have one name; rename one")
    return factors


def _read_recipe_keys(values: Any, where: str) -> dict[str, Any]:
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise _wrong(where, values, "recipe keys, such as {optim.lr: 0.001}; {} sets none")
    data = values.get("data")
    inner = data if isinstance(data, dict) else {}
    if "seed" in values:
        raise UsageError(f"{where}: seed is set by the study's own key, seeds; leave it out here")
    if ("data.split_seed" in values or "split_seed" in inner) and not where.endswith(": set"):
        raise UsageError(
            f"{where}: data.split_seed must be the same in all cells; give it in set, or write "
            "split_by_seed: true"
        )
    return values


def _read_seeds(values: Any, where: str) -> tuple[int, ...]:
    wanted = "a list of different whole numbers from 0 to 4294967295, such as [0, 1, 2]"
    if not isinstance(values, list) or not values:
        raise _wrong(where, values, wanted)
    whole = all(type(seed) is int and 0 <= seed < 2**32 for seed in values)
    if not whole or len(set(values)) < len(values):
        raise _wrong(where, values, wanted)
    return tuple(values)


def _read_metric(values: Any, where: str) -> Metric:
    _check_keys(values, ("name", "better"), ("name", "better"), where)
    if values["better"] not in ("higher", "lower"):
        raise _wrong(f"{where}: better", values["better"], "higher or lower")
    return Metric(_text(values["name"], f"{where}: name"), values["better"])


def _read_measure(values: Any, where: str) -> Measure:
    _check_keys(values, ("what", "images"), ("what",), where)
    what, images = values["what"], values.get("images")
    if not isinstance(what, list) or not what or len(set(map(str, what))) < len(what):
        raise _wrong(f"{where}: what", what, f"a list of {', '.join(WHAT)}")
    for name in what:
        _check_known(str(name), WHAT, f"{where}: what: unknown measurement")
    if images is not None and (type(images) is not int or images < 1):
        raise _wrong(f"{where}: images", images, "a whole number from 1; leave it out for all")
    return Measure(tuple(what), images)


def _read_levels(values: Any, factors: Mapping[str, Any], where: str) -> dict[str, str]:
    if not isinstance(values, dict) or not values:
        raise _wrong(where, values, "a level by factor, such as {balance: fixed}")
    levels = {}
    for factor, level in values.items():
        _check_known(str(factor), factors, f"{where}: unknown factor")
        _check_known(str(level), factors[str(factor)], f"{where}: {factor}: unknown level")
        levels[str(factor)] = str(level)
    return levels


def _read_rules(
    values: Any, factors: Mapping[str, Any], baseline: Levels, where: str
) -> tuple[Rule, ...]:
    if not isinstance(values, list) or not values:
        raise _wrong(where, values, f"a list of rules, each with {', '.join(_RULE_KEYS[:3])} and "
                     f"one of {', '.join(KINDS)}")  # fmt: skip
    rules = tuple(
        _read_rule(value, factors, baseline, f"{where}: {number}")
        for number, value in enumerate(values, start=1)
    )
    if len({rule.name for rule in rules}) < len(rules):
        raise UsageError(f"{where}: two rules have one name; rename one")
    return rules


def _read_rule(value: Any, factors: Mapping[str, Any], baseline: Levels, where: str) -> Rule:
    _check_keys(value, _RULE_KEYS, ("name", "compare"), where)
    kinds = [kind for kind in KINDS if kind in value]
    if len(kinds) != 1:
        raise UsageError(
            f"{where}: has {' and '.join(kinds) or 'no bound'}; give one of {', '.join(KINDS)}"
        )
    margin, least = value[kinds[0]], "0" if kinds[0] == "no_worse_than" else "above 0"
    is_number = isinstance(margin, int | float) and not isinstance(margin, bool)
    if not is_number or not 0 <= margin < math.inf or (margin == 0 and least != "0"):
        # With 0, two equal networks would be "better".
        allowed = "a number from 0" if least == "0" else "a number above 0"
        raise _wrong(f"{where}: {kinds[0]}", margin, f"{allowed}, in the unit of the metric")
    compare = _read_levels(value["compare"], factors, f"{where}: compare")
    against = value.get("against", {})
    against = _read_levels(against, factors, f"{where}: against") if against else {}
    against = {**baseline, **against}
    for factor in against:
        if factor not in compare and factor not in baseline:
            raise UsageError(f"{where}: against names {factor}, compare does not; name it in both")
    for factor in compare:
        if factor not in against:
            raise UsageError(
                f"{where}: compare names {factor}, which neither baseline nor against name; add it "
                "to against"
            )
    compare = {**baseline, **compare}
    if compare == against:
        raise UsageError(f"{where}: compares {_shown(compare)} with itself")
    metric = _read_metric(value["metric"], f"{where}: metric") if "metric" in value else None
    name = _text(value["name"], f"{where}: name")
    return Rule(name, kinds[0], float(margin), compare, against, metric)


def _check_keys(values: Any, known: Sequence[str], needed: Iterable[str], where: str) -> None:
    if not isinstance(values, dict):
        raise _wrong(where, values, f"a mapping with the keys {', '.join(known)}")
    for key in values:
        _check_known(str(key), known, f"{where}: unknown key")
    for key in needed:
        if key not in values:
            raise UsageError(f"{where}: {key} is missing; needed are {', '.join(needed)}")


def _check_known(word: str, known: Iterable[str], what: str) -> None:
    names = list(known)
    if word not in names:
        hint = nearest(word, names)
        raise UsageError(f"{what} {shorten(repr(word))}{hint} (allowed: {', '.join(names)})")


def _name(value: Any, where: str) -> str:
    """Returns the name of a factor or level."""
    if isinstance(value, bool) or value is None:
        raise UsageError(f"{where}: a name is read as {value}; quote it, or choose another")
    if not _NAME.fullmatch(str(value)):
        raise _wrong(where, value, "names of up to 40 letters, digits and . + - _")
    return str(value)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _wrong(where, value, "a text")
    return value.strip()


def _shown(levels: Levels) -> str:
    return ", ".join(f"{factor} {level}" for factor, level in levels.items())


def _wrong(where: str, value: Any, wanted: str) -> UsageError:
    return UsageError(f"{where} is {shorten(repr(value))}, must be {wanted}")
