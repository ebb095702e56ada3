"""JSON of commands: valid whatever the numbers are."""

import json
import math

import pytest

from spanets_cli.output import print_json


def strictly(text: str):
    def refuse(word):
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_null_and_said(capsys, bad):
    value = {"metrics": {"loss": bad, "accuracy": 0.5}, "rows": [1, (bad, 2.5)], "name": "NaN"}
    assert print_json(value) == 1
    printed, said = capsys.readouterr()
    assert strictly(printed) == {
        "metrics": {"loss": None, "accuracy": 0.5},
        "rows": [1, [None, 2.5]],
        "name": "NaN",
    }
    assert said == "spanets: 2 numbers are not finite, null in the JSON, such as metrics.loss\n"


def test_other_values_are_printed_as_they_are(capsys):
    value = [{"a": 1.5, "b": None, "c": True, "d": "ä"}]
    assert print_json(value, ensure_ascii=False) == 0
    printed, said = capsys.readouterr()
    assert strictly(printed) == value
    assert "ä" in printed
    assert said == ""
