"""Means, differences and verdicts of a study from the values of its cells: pure functions.

results.json holds the design and the cells, so all of this can be computed again from it.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from statistics import fmean
from typing import Any

from spanets.experiments.statistics import (
    MOST_ENUMERATED,
    RESAMPLES,
    Summary,
    paired_differences,
    range_coverage,
    summarise,
)
from spanets.experiments.verdicts import KINDS, Metric, Rule, decide, describe_power, explain

Row = Mapping[str, Any]
Values = dict[tuple[str, ...], dict[int, float]]
"""The metric by combination of levels and by seed."""

_COSTS = ("train_seconds", "parameters", "macs")


def summarise_study(design: Row, cells: Sequence[Row]) -> dict[str, Any]:
    """Returns the combinations, verdicts and notes of a study.

    Args:
        design: See `Study.design`.
        cells: For each cell its levels, seed, status, value, costs and environment.
    """
    values = _collect(cells)
    return {
        "combinations": [
            _summarise_combination(levels, design, values, cells) for levels in _all(design)
        ],
        "verdicts": [verdict for rule in _rules(design) for verdict in _judge(rule, design, cells)],
        "counts": dict(Counter(cell["status"] for cell in cells)),
        "notes": _describe(design, cells, values),
    }


def _collect(cells: Sequence[Row], metric: str | None = None) -> Values:
    """Returns the values of the study's metric, or of one that a rule names."""
    values: Values = {}
    for cell in cells:
        value = cell["value"] if metric is None else cell["values"][metric]
        if value is not None:
            values.setdefault(_key(cell["levels"]), {})[cell["seed"]] = value
    return values


def _key(levels: Mapping[str, str]) -> tuple[str, ...]:
    """Returns a combination as levels in the order of their factors' names."""
    return tuple(levels[factor] for factor in sorted(levels))


def _all(design: Row, fixed: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """Returns the combinations of levels, perhaps with some factors fixed."""
    given = fixed or {}
    choices = [[given[name]] if name in given else list(design["factors"][name])
               for name in design["factors"]]  # fmt: skip
    return [dict(zip(design["factors"], row, strict=True)) for row in product(*choices)]


def _summarise_combination(
    levels: dict[str, str], design: Row, values: Values, cells: Sequence[Row]
) -> dict[str, Any]:
    own = values.get(_key(levels), {})
    against = {**levels, **design["baseline"]}
    pairs = paired_differences(own, values.get(_key(against), {}))
    done = [cell for cell in cells if cell["levels"] == levels and cell["status"] == "finished"]
    return {
        "levels": levels,
        **asdict(summarise(own.values())),
        "against": None if against == levels else against,
        "difference": None if against == levels else asdict(summarise(pairs.values())),
        **{name: _mean(cell[name] for cell in done) for name in _COSTS},
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _rules(design: Row) -> list[Rule]:
    rules = []
    for row in design["rules"]:
        (kind,) = row.keys() & KINDS.keys()
        metric = Metric(**row["metric"]) if "metric" in row else None
        rules.append(Rule(row["name"], kind, row[kind], row["compare"], row["against"], metric))
    return rules


def _judge(rule: Rule, design: Row, cells: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns the verdict of a rule at each combination of the factors that it does not name."""
    sign = (rule.metric or Metric(**design["metric"])).sign
    values = _collect(cells, rule.metric.name if rule.metric else None)
    verdicts = []
    for levels in _all(design, rule.compare):
        against = {**levels, **rule.against}
        pairs = paired_differences(values.get(_key(levels), {}), values.get(_key(against), {}))
        gain = summarise(sign * difference for difference in pairs.values())
        by_t = decide(rule, gain, by_t=True)
        verdicts.append(
            {
                "rule": rule.name,
                "claim": str(rule),
                "levels": levels,
                "against": against,
                "gain": asdict(gain),
                "verdict": decide(rule, gain),
                "verdict_by_t": by_t,
                "reason": _explain(rule, gain, by_t),
            }
        )
    return verdicts


def _explain(rule: Rule, gain: Summary, by_t: str) -> str:
    reason = explain(rule, gain)
    if gain.t_low is None or gain.t_high is None or by_t == decide(rule, gain):
        return reason
    return f"{reason}. By Student's t, from {gain.t_low:+.4f} to {gain.t_high:+.4f}: {by_t}"


def _describe(design: Row, cells: Sequence[Row], values: Values) -> list[str]:
    """Returns what the reader must know to judge the numbers, a line each."""
    rules = sum(len(_all(design, rule.compare)) for rule in _rules(design))
    return [
        *_describe_incomplete(cells),
        *_describe_undefined(design, cells),
        *_describe_failures(cells),
        *_describe_few(values),
        *_describe_environments(cells),
        *_describe_splits(cells),
        *([f"{rules} verdicts, each by its own 95 % interval, not corrected for their number"]
          if rules > 1 else []),
    ]  # fmt: skip


def _describe_incomplete(cells: Sequence[Row]) -> list[str]:
    counts = Counter(cell["status"] for cell in cells)
    if counts["finished"] == len(cells):
        return []
    listed = ", ".join(f"{count} {status}" for status, count in counts.items())
    return [f"of {len(cells)} cells: {listed}; the numbers are of the finished ones only"]


def _describe_undefined(design: Row, cells: Sequence[Row]) -> list[str]:
    """Counts finished cells without a finite number, by metric."""
    metric = design["metric"]["name"]
    counts: Counter[str] = Counter()
    for cell in cells:
        if cell["status"] == "finished":
            values = {**cell.get("values", {}), metric: cell["value"]}
            counts.update(name for name, value in values.items() if value is None)
    return [
        f"{count} finished cells have no finite {name}; its numbers are without them"
        for name, count in sorted(counts.items(), key=lambda pair: pair[0] != metric)
    ]


def _describe_failures(cells: Sequence[Row]) -> list[str]:
    failures: dict[str, list[str]] = {}
    for cell in cells:
        if cell["status"] == "failed":
            name = ", ".join(f"{factor} {level}" for factor, level in cell["levels"].items())
            failures.setdefault(cell["problem"], []).append(f"{name}, seed {cell['seed']}")
    return [f"failed: {'; '.join(names)}: {problem}" for problem, names in failures.items()]


def _describe_few(values: Values) -> list[str]:
    """Says what an interval of few seeds means."""
    numbers = [len(of_seeds) for of_seeds in values.values() if len(of_seeds) > 1]
    fewest, most = min(numbers, default=0), max(numbers, default=0)
    notes = []
    if 2 <= fewest <= 5:
        what = "is" if fewest <= 3 else "lies within"
        notes.append(
            f"n = {fewest}: the 95 % bootstrap interval {what} the range of the values; from a "
            "symmetric distribution, such a range holds the true mean in "
            f"{100 * range_coverage(fewest):.0f} of 100 studies, not in 95"
        )
    if most > MOST_ENUMERATED:
        notes.append(
            f"intervals of more than {MOST_ENUMERATED} seeds are from {RESAMPLES:,} resamples, "
            "drawn with a fixed random seed"
        )
    return notes


def _describe_environments(cells: Sequence[Row]) -> list[str]:
    found = [cell["environment"] for cell in cells if cell["environment"]]
    distinct = {json.dumps(environment, sort_keys=True) for environment in found}
    if len(distinct) < 2:
        return []
    keys = dict.fromkeys(key for environment in found for key in environment)
    differing = []
    for key in keys:
        seen = sorted({str(environment.get(key)) for environment in found})
        if len(seen) > 1:
            differing.append(f"{key} ({' | '.join(seen)})")
    return [f"the cells come from {len(distinct)} environments, which differ in "
            f"{', '.join(differing)}"]  # fmt: skip


def _describe_splits(cells: Sequence[Row]) -> list[str]:
    """Says where cells of one seed and equal data keys were trained on different images."""
    notes = []
    for seed in dict.fromkeys(cell["seed"] for cell in cells):
        groups: dict[Any, set[Any]] = {}
        for cell in cells:
            if cell["seed"] == seed and cell["data"] is not None:
                groups.setdefault(cell["data"], set()).add((cell["split"], cell["images"]))
        if worst := max((len(splits) for splits in groups.values() if len(splits) > 1), default=0):
            notes.append(
                f"seed {seed}: cells with equal data keys have {worst} different splits of the "
                "images, so their differences are also those of the splits; the data changed"
            )
    return notes


def describe_powers(results: Row, sizes: Sequence[float]) -> list[str]:
    """Says how many seeds differences of some sizes need, a line for each comparison and size."""
    return [
        f"{', '.join(row['levels'].values())}: {describe_power(size, Summary(**row['difference']))}"
        for row in results["combinations"]
        if row["difference"] is not None
        for size in sizes
    ]
