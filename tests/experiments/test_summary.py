"""Tables, verdicts and notes from the values of cells."""

import json

import pytest

from spanets.experiments.page import draw, find_margins, write_page
from spanets.experiments.recording import (
    describe_verdicts,
    further_rows,
    table_rows,
    write_results,
)
from spanets.experiments.summary import describe_powers, summarise_study

DESIGN = {
    "factors": {"balance": ["fixed", "learnt"], "data": ["cells", "shapes"]},
    "seeds": [0, 1, 2],
    "metric": {"name": "accuracy", "better": "higher"},
    "baseline": {"balance": "fixed"},
    "rules": [
        {
            "name": "learnt is better",
            "better_by": 0.01,
            "compare": {"balance": "learnt"},
            "against": {"balance": "fixed"},
        }
    ],
}
VALUES = {
    ("fixed", "cells"): [0.70, 0.60, 0.80],
    ("learnt", "cells"): [0.72, 0.63, 0.81],
    ("fixed", "shapes"): [0.50, 0.50, 0.50],
    ("learnt", "shapes"): [0.49, 0.48, 0.50],
}


def make_cells(**changes):
    cells = [
        {
            "levels": dict(zip(("balance", "data"), levels, strict=True)),
            "seed": seed,
            "status": "finished",
            "value": value,
            "problem": None,
            "train_seconds": 90.0,
            "parameters": 1_020_000,
            "macs": None,
            "environment": {"torch": "2.9", "gpus": []},
            "data": levels[1],
            "split": "a",
            "images": 4,
        }
        for levels, values in VALUES.items()
        for seed, value in enumerate(values)
    ]
    cells[-1] |= changes
    return cells


def results(design=None, **changes):
    design, cells = design or DESIGN, make_cells(**changes)
    found = summarise_study(design, cells)
    meta = {"question": "Is <b> better?", "recipe": "elpv", "written": "now", "version": "1"}
    return {**meta, **design, **found, "cells": cells, "history": []}


def test_differences_are_within_a_level_of_other_factors():
    cells, shapes = results()["verdicts"]
    assert cells["gain"]["mean"] == pytest.approx(0.02)
    assert (cells["gain"]["low"], cells["gain"]["high"]) == pytest.approx((0.01, 0.03))
    assert shapes["verdict"] == "does not hold"
    assert shapes["levels"] == {"balance": "learnt", "data": "shapes"}
    assert shapes["against"] == {"balance": "fixed", "data": "shapes"}


def test_lower_may_be_better():
    worse = {**DESIGN, "metric": {"name": "loss", "better": "lower"}}
    for higher, lower in zip(results()["verdicts"], results(worse)["verdicts"], strict=True):
        assert lower["gain"]["mean"] == -higher["gain"]["mean"]
    assert [v["verdict"] for v in results(worse)["verdicts"]] == ["does not hold", "undecided"]


def test_student_s_interval_is_wider_and_said():
    shapes = results({**DESIGN, "metric": {"name": "loss", "better": "lower"}})["verdicts"][1]
    assert shapes["verdict_by_t"] == "undecided"
    found = results({**DESIGN, "rules": [{**DESIGN["rules"][0], "better_by": 0.009}]})["verdicts"]
    assert (found[0]["verdict"], found[0]["verdict_by_t"]) == ("holds", "undecided")
    assert "By Student's t, from -0.0048 to +0.0448: undecided" in found[0]["reason"]


def test_a_failed_cell_is_said_and_leaves_its_pair_out():
    found = results(status="failed", value=None, problem="memory is full", environment=None)
    assert found["counts"] == {"finished": 11, "failed": 1}
    first, second, *_ = found["notes"]
    assert first.startswith("of 12 cells: 11 finished, 1 failed; the numbers are of the finished")
    assert second == "failed: balance learnt, data shapes, seed 2: memory is full"
    assert found["combinations"][3]["n"] == 2
    assert found["combinations"][3]["difference"]["n"] == 2
    assert found["verdicts"][1]["verdict"] == "undecided"


def test_an_undefined_value_is_counted():
    said = "1 finished cells have no finite {}; its numbers are without them"
    assert results(value=None)["notes"][0] == said.format("accuracy")
    notes = results(values={"loss": None})["notes"]  # of a rule's own metric
    assert notes[0] == said.format("loss")


def test_few_seeds_are_said():
    (said,) = [note for note in results()["notes"] if note.startswith("n = 3")]
    assert "is the range of the values" in said
    assert "75 of 100 studies, not in 95" in said


def test_environments_are_counted():
    assert not any("environments" in note for note in results()["notes"])
    found = results(environment={"torch": "2.10", "gpus": []})["notes"]
    (said,) = [note for note in found if "environments" in note]
    assert said == "the cells come from 2 environments, which differ in torch (2.10 | 2.9)"


@pytest.mark.parametrize("change", [{"split": "b"}, {"images": 5}])
def test_other_splits_are_said(change):
    (said,) = [note for note in results(**change)["notes"] if "splits" in note]
    assert said.startswith("seed 2: cells with equal data keys have 2 different splits")


def test_the_table_says_what_the_numbers_are():
    header, rows = table_rows(results())
    assert header[:5] == ["balance", "data", "n", "accuracy", "95 % interval"]
    assert rows[0][:6] == ["fixed", "cells", "3", "0.7000", "0.6000 to 0.8000", "baseline"]
    assert rows[2][5:7] == ["+0.0200", "+0.0100 to +0.0300"]
    assert rows[0][7:] == ["1.5 min", "1.02", "-"]
    line = describe_verdicts(results())[1]
    assert line.startswith(
        "does not hold: learnt is better (balance learnt against balance fixed at data shapes: "
        "better by at least 0.01): gain -0.0100, 95 % from -0.0200 to +0.0000, n 3; none of it"
    )


def test_metrics_that_only_rules_name_have_a_table_of_means():
    assert further_rows(results()) is None
    loss = {"name": "loss", "better": "lower"}
    rules = [*DESIGN["rules"], {**DESIGN["rules"][0], "name": "lower loss", "metric": loss}]
    found = {**results(values={"loss": 0.25}), "rules": rules}
    header, rows = further_rows(found)
    assert header == ["balance", "data", "mean loss"]
    # Only the last cell, of learnt balance and shapes, has that metric.
    assert [row[2] for row in rows].count("-") == 3
    assert ["learnt", "shapes", "0.2500"] in rows


def test_powers_are_for_each_comparison_and_size():
    lines = describe_powers(results(), [0.01, 0.05])
    assert len(lines) == 4
    assert lines[0].startswith("learnt, cells: to tell a difference of 0.01 from 0 takes ")


def test_the_files_hold_the_results(tmp_path):
    found = results()
    write_results(found, tmp_path)
    stored = json.loads((tmp_path / "results.json").read_text())
    again = summarise_study({key: stored[key] for key in DESIGN}, stored["cells"])
    assert again == {key: stored[key] for key in again}  # from the raw values alone
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("balance,data,n,mean,deviation,low,high,t_low,t_high,difference_n,")


def test_the_page_stands_alone(tmp_path):
    write_page(results(status="failed", value=None, problem="<i>", environment=None), tmp_path)
    text = (tmp_path / "study.html").read_text()
    assert "Is &lt;b&gt; better?" in text
    assert "&lt;i&gt;" in text
    assert "http" not in text.replace("http-equiv", "")
    assert 'src="data:image/png;base64,' in text


def test_a_study_without_results_can_be_drawn():
    design = {**DESIGN, "factors": {"balance": ["fixed", "learnt"], "data": ["other"]}}
    cells = [{**cell, "value": None, "levels": {**cell["levels"], "data": "other"}}
             for cell in make_cells()[:6]]  # fmt: skip
    found = {**design, **summarise_study(design, cells), "cells": cells}
    assert draw(found).startswith(b"\x89PNG")


LEARNT, FIXED, OTHER = {"balance": "learnt"}, {"balance": "fixed"}, {"balance": "other"}


@pytest.mark.parametrize(
    ("bound", "higher"),
    [("better_by", [0.01]), ("no_worse_than", [-0.01]), ("equal_within", [-0.01, 0.01])],
)
def test_margins_are_on_the_side_on_which_a_rule_counts(bound, higher):
    """Also where a rule compares the baseline with another combination, and less is better."""

    def margins(compare, against, better="higher", **more):
        rule = {"name": "n", bound: 0.01, "compare": compare, "against": against, **more}
        metric = {"name": "accuracy", "better": better}
        return find_margins({"baseline": FIXED, "metric": metric, "rules": [rule]})

    flipped = sorted(-margin for margin in higher)
    assert margins(LEARNT, FIXED) == margins(FIXED, LEARNT, "lower") == higher
    assert margins(FIXED, LEARNT) == margins(LEARNT, FIXED, "lower") == flipped
    assert margins(LEARNT, OTHER) == []
    assert margins(LEARNT, FIXED, metric={"name": "loss", "better": "lower"}) == []
