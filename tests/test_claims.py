"""docs/claims.md: links lead to files, and quoted numbers are those of the results."""

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from spanets.experiments.statistics import summarise

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/claims.md"
TEXT = PAGE.read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([ABC]\d+) \| (.*) \|$", TEXT, flags=re.MULTILINE)
LINKS = re.findall(r"\[([^\]]+)\]\(([^)]+)\)", TEXT)
QUOTES = [
    (text, *target.removeprefix("../").split("#"))
    for text, target in LINKS
    if target.startswith(("../benchmarks/results/", "../studies/results/")) and "#" in target
]
VERDICTS = ("holds", "does not hold", "undecided", "not tested", "not a test", "not comparable")


def values(results, place):
    """The numbers at a place such as "models/*/accuracy", by what "*" stands for."""
    found = {(): results}
    for step in place.split("/"):
        if step == "*":
            found = {(*key, name): v[name] for key, v in found.items() for name in v}
        else:
            found = {key: v[unquote(step)] for key, v in found.items()}
    return found


def quoted(place, results):
    """The numbers that a link's text must have: one, or a paired difference with its interval."""
    if place.startswith("rule="):  # of a study: the gain that a rule is about
        name = unquote(place.removeprefix("rule="))
        (verdict,) = [row for row in results["verdicts"] if row["rule"] == name]
        return [verdict["gain"][name] for name in ("mean", "low", "high")]
    if "combinations" in results:  # the difference of a combination to the baseline
        levels = dict(pair.split("=") for pair in place.split(","))
        (row,) = [row for row in results["combinations"] if row["levels"] == levels]
        return [row["difference"][name] for name in ("mean", "low", "high")]
    first, minus, second = place.partition("-models/")
    ours = values(results, first)
    if not minus:
        (number,) = ours.values()
        return [number]
    theirs = values(results, f"models/{second}")
    summary = summarise(ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys()))
    return [summary.mean, summary.low, summary.high]


@pytest.mark.parametrize(("text", "file", "place"), QUOTES, ids=lambda value: value[-60:])
def test_numbers_are_those_of_the_results(text, file, place):
    expected = quoted(place, json.loads((ROOT / file).read_text()))
    written = re.findall(r"[+-]?\d+(?:\.\d+)?", text)
    assert len(written) == len(expected)
    for word, number in zip(written, expected, strict=True):
        digits = len(word.partition(".")[2])
        sign = "+" if word[0] in "+-" else ""
        assert word == f"{number:{sign}.{digits}f}"


def test_numbers_are_quoted():
    assert len(QUOTES) >= 25


def test_every_number_with_a_link_has_a_place_in_its_file():
    for text, target in LINKS:
        if re.fullmatch(r"[+-]?[\d.]+.*", text):
            assert "#" in target, text


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("target", sorted({target for _, target in LINKS}))
def test_links_lead_to_files_and_headings(target):
    path, _, anchor = target.partition("#")
    file = (PAGE.parent / path).resolve()
    assert file.is_file()
    assert file.is_relative_to(ROOT.resolve())
    if anchor and file.suffix == ".md":
        assert anchor in anchors(file)


@pytest.mark.parametrize(("number", "row"), ROWS, ids=[number for number, _ in ROWS])
def test_rows_are_complete(number, row):
    claim, where, check, n, interval, verdict = row.split(" | ")
    assert all((claim, where, check, n, interval))
    assert any(word in verdict for word in VERDICTS)
    if n == "0":
        assert verdict.startswith("not tested: ")


def test_rows_are_numbered():
    for paper in "ABC":
        numbers = [int(number[1:]) for number, _ in ROWS if number[0] == paper]
        assert numbers == list(range(1, len(numbers) + 1))
    assert len(ROWS) == len(re.findall(r"^\| [ABC]\d", TEXT, flags=re.MULTILINE))


def test_the_citation_names_the_papers_of_the_page():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["type"] == "software"
    assert "docs/claims.md" in citation["abstract"]
    papers = [row["value"] for work in citation["references"] for row in work["identifiers"]]
    for paper in papers:
        assert paper.replace(":", " ") in TEXT
