"""Whatever a file or a command line holds: one line says what is wrong, and nothing in it is run.

Each test draws other inputs in every run, for a few seconds; hypothesis tells how to repeat one.
Images are fuzzed in tests/runtime/test_images.py, exported models in tests/runtime/test_onnx.py,
flipped bits of checkpoints in tests/test_checkpoint.py.
"""

import io
import os
import pickle
import re
import zipfile
from argparse import Action
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from datetime import date
from functools import partial
from operator import attrgetter
from pathlib import Path
from types import NoneType, UnionType
from typing import Literal, Union, get_args, get_origin

import pytest
import timm
import torch
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from opened import RECIPES, restore_model

import spanets_cli
from spanets.checkpoint import INFO_KEY, ModelInfo, load_checkpoint
from spanets.classification.predict import Predictor
from spanets.classification.recipe import ClassificationRecipe
from spanets.recipe import known_keys, known_ranges, list_recipes, load_recipe, parse_recipe
from spanets.recipe.preprocessing import OPEN
from spanets_cli.base_parser import Parser
from spanets_cli.parser import COMMANDS, make_parser
from spanets_runtime.errors import UsageError, UserError

# A function-scoped folder serves all examples: each writes its file anew.
bounded = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    texts,
    st.sampled_from([0, 1, -1, 2**63, 1e308, "1e-3", "null", "../..", "a\nb", "\0", "[", "{}"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
keys = (
    st.sampled_from(
        [*sorted(known_keys(ClassificationRecipe)), "model.args.x", "extends", "data", "seed.x"]
    )
    | texts
)


def one_line(error: BaseException) -> None:
    assert str(error)
    assert "\n" not in str(error)


# ---- recipes


@bounded
@given(st.dictionaries(keys, values, max_size=5))
@example({"\n": None})
def test_recipes_of_any_values(content):
    try:
        recipe = parse_recipe(content)
    except UsageError as error:
        one_line(error)
        return
    assert parse_recipe(recipe.to_dict()) == recipe


@bounded
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@example(b"seed: " + b"[" * 1500)
@example(b"seed: " + b"9" * 5000)
@example(b"seed: 2020-99-99")
@example(b"seed: &a [*a]")
@example(b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nseed: [*c, *c]")
@example(b"seed: !!int x")
@example(b"seed: !!binary x")
@example(b"? [1]\n: 2")
@example(b"<<: 3")
@example(b"extends: [elpv]")
@example(b"extends: {a: 1}")
@example(b"seed: !!python/object/apply:os.mkdir [exploded]")
def test_recipe_files_of_any_bytes(tmp_path, content):
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    try:
        load_recipe(str(path))
    except UsageError as error:
        one_line(error)


@bounded
@given(st.sampled_from(list_recipes()), st.randoms(use_true_random=False))
def test_recipe_files_with_a_slip(tmp_path, name, draw):
    """Characters of a right one are left out, doubled and exchanged."""
    text = list(yaml.safe_dump(load_recipe(name).to_dict()))
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(text))
        text[at] = draw.choice(["", text[at] * 2, draw.choice(":{}[]-#&*!|>'\"%@`, \n\t0aé")])
    path = tmp_path / "r.yaml"
    path.write_text("".join(text))
    try:
        load_recipe(str(path))
    except UsageError as error:
        one_line(error)


# ---- words of the command line, key by key

NASTY = [
    *(
        "",
        " ",
        "  x ",
        "a",
        "set #2",
        "a: b",
        "- a",
        "? a",
        "&a",
        "*a",
        "!a",
        "!!int 1",
        "%x",
        "@x",
    ),
    *("`x`", "|", ">", "'a'", '"a"', "'", '"', "#", "# a", "\\", "a\\n", "a\nb", "\t", "é", "日本"),
    *("0", "-0", "1", "+1", "-1", "2", "010", "08", "007", "0x10", "0b11", "0o17", "1_000", "1__0"),
    *("_1", "1_", "1:30", "1:30.5", "5 6", "1,5", "1.0", ".5", "5.", "-.5", "1e3", "1E-3", "1e400"),
    *("1e-400", "inf", "-inf", ".inf", "nan", ".nan", "NaN", "Infinity", "9" * 19, "9" * 400),
    *("9" * 5000, "1" * 30 + ".5", "\u0661\u0660", "\uff11", "²", "½", "2020-01-01", "12:00"),
    *("true", "True", "TRUE", "tRuE", "false", "yes", "NO", "on", "Off", "y", "n", "t", "maybe"),
    *("null", "Null", "NONE", "none", "~", "nil", "auto", "AUTO", "folder", "Folder", "folder "),
    *("[]", "[a]", "[1]", "[1, 2]", "[0.1, 0.2]", "[0.5, 0.5, 0.5]", "(0.5, 0.6)", "0.5,0.6"),
    *("[0.1, 0.2] # x", "[0.1, 0.2", "0.1, 0.2]", "[[0.1, 0.2]]", "[010, 011]", "[1e3, 2e3]"),
    *("{}", "{a: 1}", "{a: 1} # x", "{a: 1, a: 2}", "{1: 2}", "{a: 010}", "{a: yes}", "{a", "a: 1"),
    *(
        '{"a": "b"}',
        "{a: [1, {b: c}]}",
        "[" * 1800,
        "{a: " * 1800,
        "[*a]",
        "&a [*a]",
        "=",
        "<<",
        "{<<: 1}",
    ),
    *(
        "\0",
        "a\0b",
        "\x1b[2J",
        "\u202ea",
        "\udcff",
        "\ud800",
        "x" * 10_000,
        "~nosuchuser",
        "http://[::1",
    ),
    *(
        "$\\frac$",
        "../..",
        "/dev/zero",
        "-",
        "--",
        "--x",
        "-1",
        "-x",
        "*",
        "!!python/object/apply:os.mkdir [x]",
    ),
]


CHANNELS = 3
"""Channels of images by default."""


def python_readings(text: str, wanted) -> list:
    """What Python itself makes of a word, as each of the types that a key may have."""
    readings = []
    for kind in get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (wanted,):
        if kind is str:
            readings.append(text)
        elif kind is NoneType and text.strip().lower() in ("null", "none"):
            readings.append(None)
        elif kind is bool and text.strip().lower() in ("true", "yes", "on"):
            readings.append(True)
        elif kind is bool and text.strip().lower() in ("false", "no", "off"):
            readings.append(False)
        elif kind in (int, float):
            with suppress(ValueError):
                readings.append(kind(text))
        elif get_origin(kind) is Literal:
            readings += [option for option in get_args(kind) if option == text]
        elif get_origin(kind) is tuple:
            with suppress(ValueError):
                numbers = text.strip().strip("[]()").split(",")
                kinds = get_args(kind)
                if kinds[-1] is Ellipsis:  # a number for each channel, or one for all
                    kinds = kinds[:1] * len(numbers)
                    numbers, kinds = numbers * CHANNELS ** (len(numbers) == 1), kinds * CHANNELS
                    kinds = kinds[: len(numbers)]
                readings.append(tuple(n(part) for part, n in zip(numbers, kinds, strict=True)))
        elif kind == list[str]:
            readings.append([part.strip() for part in text.strip().strip("[]()").split(",")])
        elif get_origin(kind) is list:
            with suppress(ValueError):
                numbers = text.strip().strip("[]()").split(",")
                readings.append([float(part) for part in numbers])
        elif get_origin(kind) is dict:
            with suppress(yaml.YAMLError, RecursionError, ValueError):
                readings.append(yaml.safe_load(text))
    return readings


@pytest.mark.parametrize(("task", "kind"), RECIPES.items())
def test_every_key_with_every_word_is_read_as_python_does_or_refused(task, kind):
    for key, wanted in known_keys(kind).items():
        section, _, name = key.rpartition(".")
        for text in NASTY:
            try:
                recipe = parse_recipe({"task": task}, [f"--{key}={text}"])
            except UsageError as error:
                one_line(error)
                assert len(str(error)) < 1000
                continue
            value = attrgetter(key)(recipe)
            if text.strip().lower() in ("null", "none") and section == "data" and name in OPEN:
                assert value is not None  # filled in
                continue
            found = [(type(r), r) for r in python_readings(text, wanted)]
            assert (type(value), value) in found, (key, text, value)


@pytest.mark.parametrize(("task", "kind"), RECIPES.items())
def test_every_key_with_every_word_in_a_file_keeps_its_meaning_or_is_refused(task, kind, tmp_path):
    """PyYAML alone read it before, but for 1e3, which it takes for a text."""
    readable = [text for text in NASTY if len(text) < 1000 and not re.search("[eE]", text)]
    path = tmp_path / "r.yaml"
    for text in readable:
        path.write_bytes(f"task: {task}\nmodel.args.x: {text}\n".encode("utf-8", "replace"))
        try:
            value = load_recipe(str(path)).model.args["x"]
        except UsageError as error:
            one_line(error)
            continue
        with suppress(yaml.YAMLError):  # it was refused
            before = yaml.safe_load(path.read_text())["model.args.x"]
            if not isinstance(before, date):  # it is a text now
                assert repr(value) == repr(before), text
    for key, wanted in known_keys(kind).items():
        for value in (
            0,
            1.5,
            True,
            None,
            "x",
            [],
            [0.5, 0.5],
            {},
            {"a": 1},
            {1: 2},
            date(2020, 1, 1),
        ):
            try:
                recipe = parse_recipe({"task": task, key: value})
            except UsageError as error:
                one_line(error)
                continue
            section, _, name = key.rpartition(".")
            found = attrgetter(key)(recipe)
            if value is None and section == "data" and name in OPEN:
                assert found is not None  # filled in
                continue
            if isinstance(found, tuple) and isinstance(value, int | float):
                assert set(found) == {value}, key  # one number for all channels
                continue
            assert found == (tuple(value) if get_origin(wanted) is tuple else value), key


def commands() -> dict[str, Parser]:
    (action,) = (action for action in PARSER._actions if action.choices)
    return action.choices


def options() -> list[tuple[str, str, Callable[[str], list[str]]]]:
    """Every option of every command that takes a word: command, name, and the words for a text."""
    found = []
    for command, parser in commands().items():
        for tested in parser._actions:
            if tested.nargs != 0:
                found.append((command, tested.dest, partial(line_with, command, tested)))
    return found


def line_with(command: str, tested: Action, text: str) -> list[str]:
    """The words of a command in which one option has this text, the others that it needs an x."""
    line = [command]
    for action in commands()[command]._actions:
        word = text if action is tested else "elpv" if command == "train" else "x"
        if action.required or action is tested:
            line.append("=".join([*action.option_strings[:1], word]))
    return line


PARSER = make_parser()


@pytest.mark.parametrize(("command", "name", "line"), options())
def test_every_option_with_every_word_is_read_as_python_does_or_refused(
    command, name, line, monkeypatch
):
    given: list = []
    monkeypatch.setitem(
        commands()[command]._defaults, "run", lambda arguments, _: given.append(arguments) or 0
    )
    monkeypatch.setattr("spanets_cli.make_parser", lambda: PARSER)
    for text in NASTY:
        given.clear()
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = spanets_cli.main(line(text))
        if status:
            assert status == 2
            assert re.fullmatch("spanets: [^\n]+\n", err.getvalue())
            assert len(err.getvalue()) < 1300
            assert out.getvalue() == ""
        elif given and not text.startswith("--"):  # "--" alone ends the options
            value = getattr(given[0], name)
            values = value if isinstance(value, list) else [value]
            assert all(is_reading(one, text) for one in values), (text, value)


def is_reading(value, text: str) -> bool:
    """Tells whether Python reads a word as this value; sizes have units, paths a home folder."""
    if isinstance(value, tuple):
        words = text.split(",")
        return value == tuple(map(float, words * 2 if len(words) == 1 else words))
    if isinstance(value, str):
        return value in (text, os.path.expanduser(text))
    return value in (float(text), int(float(text)))


# ---- command lines


words = st.one_of(
    st.sampled_from(["train", "eval", "predict", "export", "bench", "models", "analyze"]),
    st.sampled_from(["elpv", "none.ckpt", "spanet_nano", "--out", "--json", "--top", "-1", "1"]),
    st.sampled_from(["--print-recipe", "--resume", "--help", "--debug", "--", "-", "=", "--=x"]),
    st.sampled_from([f"--{key}" for key in known_keys(ClassificationRecipe)]),
    st.sampled_from(
        [f"--{key}={high + 1}" for key, (_, high) in known_ranges(ClassificationRecipe).items()]
    ),
    texts,
)


@bounded
@given(st.lists(words, max_size=7), st.booleans())
@example(["train", "elpv", "--seed", "9" * 5000], False)
@example(["train", "elpv", "--seed", "[" * 1500], False)
@example(["train", "elpv", "--model.args", "2020-99-99"], False)
def test_command_lines(line, training):
    """As far as they are parsed; of `train`, as far as the recipe is."""
    line = ["train", *line] if training else line
    line = [*line, "--print-recipe"] if line[:1] == ["train"] else line
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        for name, command in COMMANDS.items():
            if name != "train":
                patch.setattr(command, "run", lambda *_: 0)
        status = spanets_cli.main(line)
    assert status in (0, 2)
    if status:
        said = err.getvalue()
        assert said.startswith(("spanets: ", "Traceback") if "--debug" in line else "spanets: ")
        assert out.getvalue() == ""


# ---- checkpoints


class Canary:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.fixture
def silent(tmp_path, monkeypatch):
    """A folder in which nothing may explode."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not Path("exploded").exists()


WEIGHTS = {
    f"model.{k}": v for k, v in timm.create_model("test_resnet", num_classes=2).state_dict().items()
}
CARD = ModelInfo(
    model="test_resnet",
    model_args={},
    classes=["cat", "dog"],
    preprocessing={
        "input_size": [3, 32, 32],
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    },
    recipe={},
    version="0",
).to_dict()


def use(path: Path, image: Path) -> None:
    """Reads a checkpoint and predicts with it, or is told in one line why that cannot be."""
    try:
        (prediction,) = Predictor(path, device="cpu")([image])
    except UserError as error:
        one_line(error)
    else:
        assert prediction.labels or prediction.error


@bounded
@given(values)
def test_checkpoints_of_any_content(silent, content):
    torch.save(content, "a.ckpt")
    with pytest.raises(UserError) as caught:
        load_checkpoint("a.ckpt")
    one_line(caught.value)


@bounded
@given(st.sampled_from(sorted(CARD)), values)
def test_checkpoints_with_a_strange_card(silent, photos, key, value):
    torch.save({"state_dict": WEIGHTS, INFO_KEY: {**CARD, key: value}}, "a.ckpt")
    use(Path("a.ckpt"), photos / "cat/0.png")


@bounded
@given(st.sampled_from(sorted(CARD["preprocessing"])), values)
def test_checkpoints_with_strange_preprocessing(silent, photos, key, value):
    assume(value != CARD["preprocessing"][key])
    info = {**CARD, "preprocessing": {**CARD["preprocessing"], key: value}}
    torch.save({"state_dict": WEIGHTS, INFO_KEY: info}, "a.ckpt")
    use(Path("a.ckpt"), photos / "cat/0.png")


@bounded
@given(st.sampled_from(sorted(WEIGHTS)), values | st.integers(0, 5).map(torch.zeros))
def test_checkpoints_with_strange_weights(silent, photos, key, value):
    torch.save({"state_dict": {**WEIGHTS, key: value}, INFO_KEY: CARD}, "a.ckpt")
    use(Path("a.ckpt"), photos / "cat/0.png")


PLACES = {
    "all": lambda c: c,
    "beside": lambda c: {"state_dict": WEIGHTS, INFO_KEY: CARD, "x": c},
    "info": lambda c: {"state_dict": WEIGHTS, INFO_KEY: {**CARD, "recipe": {"seed": [c]}}},
    "key": lambda c: {"state_dict": {**WEIGHTS, c: 1}, INFO_KEY: CARD},
    "weights": lambda c: {"state_dict": {**WEIGHTS, "model.fc.bias": c}, INFO_KEY: CARD},
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_nothing_in_a_checkpoint_is_run(place, legacy, silent):
    torch.save(PLACES[place](Canary()), "a.ckpt", _use_new_zipfile_serialization=not legacy)
    for read in (load_checkpoint, restore_model):
        with pytest.raises(UserError, match="could run code, so it is refused"):
            read("a.ckpt")


def test_the_canary_sings(silent):
    """Unpickled, it would be noticed."""
    pickle.loads(pickle.dumps(Canary()))
    assert Path("exploded").exists()
    Path("exploded").rmdir()


@bounded
@given(st.randoms(use_true_random=False))
def test_mutated_pickles_run_nothing(silent, draw):
    """Bytes of the pickle within a checkpoint with a canary are changed, checksums renewed."""
    file = io.BytesIO()
    torch.save(PLACES["info"](Canary()), file)
    with zipfile.ZipFile(file) as old, zipfile.ZipFile("a.ckpt", "w") as new:
        for name in old.namelist():
            content = bytearray(old.read(name))
            if name.endswith("data.pkl"):
                for _ in range(draw.randint(1, 20)):
                    content[draw.randrange(len(content))] = draw.randrange(256)
            new.writestr(name, bytes(content))
    try:
        load_checkpoint("a.ckpt")
    except UserError as error:
        one_line(error)
