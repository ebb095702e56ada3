"""Kept results of studies: their rules are those of the file, and their verdicts follow."""

import json
from pathlib import Path

import pytest

from spanets.experiments.study_file import read_study
from spanets.experiments.summary import summarise_study

STUDIES = Path(__file__).parents[1] / "studies"
KEPT = sorted((STUDIES / "results").glob("*.json"))


def as_json(value):
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_says_whether_it_was_run(path):
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("Hardware and time:" in line for line in head)
    (result,) = [line for line in head if "Result:" in line]
    was_run = (STUDIES / "results" / f"{path.stem}.json").is_file()
    assert ("not run yet" not in result) or not was_run


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_the_file_still_asks_what_was_answered(path):
    kept = json.loads(path.read_text())
    study = read_study(str(STUDIES / f"{path.stem}.yaml"))
    design = as_json(study.design())
    assert {key: kept[key] for key in design} == design
    assert kept["question"] == study.question
    assert [line["what"] for line in kept["history"]] == ["begun"]  # no rule or seed came later


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_verdicts_and_intervals_follow_from_the_cells(path):
    kept = json.loads(path.read_text())
    study = read_study(str(STUDIES / f"{path.stem}.yaml"))
    found = as_json(summarise_study(study.design(), kept["cells"]))
    assert found == {key: kept[key] for key in found}
    assert kept["counts"] == {"finished": len(kept["cells"])}
