"""Recipes: every key has one right type and range, and a wrong one is named with the right one."""

import math
import os
import re
from itertools import pairwise
from pathlib import Path
from typing import get_args, get_origin

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from opened import RECIPES

from spanets.classification.recipe import ClassificationRecipe
from spanets.recipe import (
    describe_repeated,
    known_keys,
    known_ranges,
    list_recipes,
    load_recipe,
    parse_recipe,
)
from spanets.recipe.documentation import keys_page, print_recipe
from spanets.recipe.keys import read_keys
from spanets.recipe.yaml_text import dump_yaml, load_yaml
from spanets_runtime.errors import UsageError

NUMBERS = [(task, key) for task, kind in RECIPES.items() for key in known_ranges(kind)]


def failure(values=None, words=(), name: str | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        if name is None:
            parse_recipe(values or {}, words, origin="r.yaml")
        else:
            load_recipe(name, words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- right ones


@pytest.mark.parametrize(("task", "kind"), RECIPES.items())
def test_defaults_are_in_range(task, kind):
    assert parse_recipe({"task": task}) == kind()


def test_a_recipe_is_for_classification_unless_it_says_otherwise():
    assert parse_recipe({}) == ClassificationRecipe()


@pytest.mark.parametrize("name", list_recipes())
def test_recipes_of_the_package_load_and_survive_a_file(name, tmp_path):
    recipe = load_recipe(name)
    path = tmp_path / "copy.yaml"
    path.write_text(yaml.safe_dump(recipe.to_dict()))
    assert load_recipe(str(path)) == recipe


def test_the_package_has_recipes():
    assert "elpv" in list_recipes()


def test_sections_dots_and_numbers():
    values = {"optim": {"lr": "placeholder", "weight_decay": 0}, "data.mean": [0, 0.5, 1]}
    values["optim"]["lr"] = yaml.safe_load("1.0e-4")
    recipe = parse_recipe(values)
    assert recipe.optim.lr == 1e-4
    assert recipe.optim.weight_decay == 0.0
    assert isinstance(recipe.optim.weight_decay, float)
    assert recipe.data.mean == (0.0, 0.5, 1.0)


def test_scientific_numbers_in_a_file(tmp_path):
    """PyYAML alone reads 1e-3 as a text."""
    path = tmp_path / "r.yaml"
    path.write_text("optim: {lr: 1e-3, min_lr: 2.E-5}\nmodel: {args: {eps: 1e-6, name: 1e}}\n")
    recipe = load_recipe(str(path))
    assert (recipe.optim.lr, recipe.optim.min_lr) == (1e-3, 2e-5)
    assert recipe.model.args == {"eps": 1e-6, "name": "1e"}


def test_a_file_extends_a_recipe_of_the_package(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("extends: elpv\nmodel: {name: resnet18}\noptim.lr: 0.25\n")
    recipe, base = load_recipe(str(path)), load_recipe("elpv")
    assert (recipe.model.name, recipe.optim.lr) == ("resnet18", 0.25)
    assert recipe.data == base.data
    assert recipe.model.args == base.model.args


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["--optim.lr", "1e-3"], "optim.lr", 1e-3),
        (["--optim.lr=2"], "optim.lr", 2.0),
        (["--optim.lr", "1", "--optim.lr", "3"], "optim.lr", 3.0),
        (["--optim.clip_grad", "null"], "optim.clip_grad", None),
        (["--optim.clip-grad", "0.5"], "optim.clip_grad", 0.5),
        (["--trainer.compile", "true"], "trainer.compile", True),
        (["--trainer.devices", "2"], "trainer.devices", 2),
        (["--trainer.devices", "auto"], "trainer.devices", "auto"),
        (["--data.mean", "[0.1, 0.2, 0.3]"], "data.mean", (0.1, 0.2, 0.3)),
        (["--data.root", "123"], "data.root", "123"),
        (["--data.root", "a: b"], "data.root", "a: b"),
        (["--data.root", "[1"], "data.root", "[1"),
        (["--data.root", "[a]"], "data.root", "[a]"),
        (["--data.root", "set #2"], "data.root", "set #2"),
        (["--data.root", "1e3"], "data.root", "1e3"),
        (["--data.root", "0x1F"], "data.root", "0x1F"),
        (["--data.root", "yes"], "data.root", "yes"),
        (["--data.root", "2020-01-01"], "data.root", "2020-01-01"),
        (["--data.root", "~"], "data.root", "~"),
        (["--data.root", " a "], "data.root", " a "),
        (["--data.root", "'a'"], "data.root", "'a'"),
        (["--data.root", "&a"], "data.root", "&a"),
        (["--data.root", "null"], "data.root", None),
        (["--data.root", "None"], "data.root", None),
        (["--model.weights", "none"], "model.weights", None),
        (["--model.name", "none"], "model.name", "none"),
        (["--trainer.epochs", "010"], "trainer.epochs", 10),
        (["--trainer.epochs", "+08"], "trainer.epochs", 8),
        (["--trainer.epochs", "1_000"], "trainer.epochs", 1000),
        (["--optim.lr", "010"], "optim.lr", 10.0),
        (["--optim.lr", ".5"], "optim.lr", 0.5),
        (["--optim.lr", "5."], "optim.lr", 5.0),
        (["--optim.lr", "1_0.5E+0_1"], "optim.lr", 105.0),
        (["--trainer.compile", "TRUE"], "trainer.compile", True),
        (["--trainer.compile", "On"], "trainer.compile", True),
        (["--trainer.channels_last", "no"], "trainer.channels_last", False),
        (["--data.mean", "0.1,0.2,0.3"], "data.mean", (0.1, 0.2, 0.3)),
        (["--data.mean", "(0.1, 0.2, 0.3)"], "data.mean", (0.1, 0.2, 0.3)),
        (["--data.root=x=y"], "data.root", "x=y"),
        (["--seed", "7"], "seed", 7),
        (["--model.args", "{drop_path_rate: 0.1}"], "model.args", {"drop_path_rate": 0.1}),
        (["--model.args.a", "[3]", "--model.args.b", "1e-1"], "model.args", {"a": [3], "b": 0.1}),
        (
            ["--model.args.a", "set #2", "--model.args.b", "010"],
            "model.args",
            {"a": "set #2", "b": 10},
        ),
        (
            ["--model.args.a", "'010'", "--model.args.b", "null"],
            "model.args",
            {"a": "010", "b": None},
        ),
        (
            ["--model.args.a", "1:30", "--model.args.b", "True"],
            "model.args",
            {"a": "1:30", "b": True},
        ),
    ],
)
def test_words_of_the_command_line(words, key, value):
    recipe = parse_recipe({"optim": {"lr": 0.5, "clip_grad": 9.0}}, words)
    section, _, name = key.rpartition(".")
    assert getattr(getattr(recipe, section) if section else recipe, name) == value


@pytest.mark.parametrize(
    ("key", "text"),
    [
        *[
            ("trainer.epochs", text)
            for text in ("1e3", "10.0", "0x10", "0b1", "0o7", "1:30", "1__0", "~", "5 # x")
        ],
        *[("optim.lr", text) for text in ("1e400", "0x10", "1:30", ".inf", "1,5", "1" * 400)],
        *[("optim.clip_grad", text) for text in ("~", "NaN")],
        *[("trainer.compile", text) for text in ("0", "y", "null", "true # x")],
        *[("data.mean", text) for text in ("[1, 1, 1", "[1, 1, [1]]", "[1, 1, 1] # x", "1 1 1")],
        *[("model.args", text) for text in ("{a: 1} # x", "{a: 1", "a: 1 # x", "[a]", "{a: 010}")],
        *[("model.args.x", text) for text in ("[1", "[1] #", "'a", "{a: &a [*a]}", "[!!set {}]")],
    ],
)
def test_words_that_could_be_read_in_two_ways_or_none_are_refused(key, text):
    failure(words=[f"--{key}", text])


def test_words_that_no_file_can_be_named_by():
    assert (
        failure(words=["--data.root", "a\0b"]) == "--data.root: a text in it holds a NUL character"
    )
    assert failure({"data": {"root": "a\0b"}}) == "r.yaml: a text in it holds a NUL character"
    assert failure({"model": {"args": {"x": ["\ud800"]}}}).endswith("half a character, a surrogate")


def test_a_repeated_key_is_told_and_the_last_counts():
    words = ["--optim.lr", "1", "--seed", "3", "--optim.lr=2", "--optim.clip-grad", "5"]
    assert describe_repeated([*words, "--optim.clip_grad", "6"], ClassificationRecipe) == [
        "--optim.lr is given 2 times; the last one counts: 2",
        "--optim.clip_grad is given 2 times; the last one counts: 6",
    ]
    words = ["--model.args.a", "1", "--model.args", "{b: 2}", "--model.args.c", "3"]
    assert parse_recipe({}, words).model.args == {"b": 2, "c": 3}
    assert describe_repeated(words, ClassificationRecipe) == [
        "--model.args.a is replaced by --model.args, given later"
    ]


def test_words_win_over_the_file_and_add_to_its_model_arguments():
    values = {"model": {"name": "a", "args": {"x": 1, "y": 2}}, "trainer": {"epochs": 3}}
    recipe = parse_recipe(values, ["--model.args.y", "5", "--trainer.epochs", "4"])
    assert recipe.model.args == {"x": 1, "y": 5}
    assert recipe.trainer.epochs == 4
    assert values["model"]["args"] == {"x": 1, "y": 2}


@settings(deadline=None)  # a busy machine is no failure
@given(st.data())
def test_every_allowed_value_survives_a_file(data):
    task, kind = data.draw(st.sampled_from(list(RECIPES.items())))
    words = []
    for key in data.draw(st.lists(st.sampled_from(sorted(known_ranges(kind))), unique=True)):
        (low, high), count = known_ranges(kind)[key], count_numbers(kind, key)
        whole = not is_float(kind, key)
        numbers = st.integers(math.ceil(low), math.floor(high)) if whole else st.floats(low, high)
        values = sorted(data.draw(numbers) for _ in range(count))  # pairs are in order
        words += [f"--{key}", str(values if count > 1 else values[0])]
    try:
        recipe = parse_recipe({"task": task}, words)
    except UsageError as error:
        assert "allowed" not in str(error)  # each is, but not together
        return
    assert parse_recipe(yaml.safe_load(yaml.safe_dump(recipe.to_dict()))) == recipe


def is_float(kind, key: str) -> bool:
    return "float" in str(known_keys(kind)[key])


def count_numbers(kind, key: str) -> int:
    wanted = known_keys(kind)[key]
    kinds = [wanted, *get_args(wanted)]  # a list of numbers, perhaps null
    if list in map(get_origin, kinds):
        return 2
    return max(len(get_args(one)) if get_origin(one) is tuple else 1 for one in kinds)


# ---- wrong ones


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("epochs", "trainer.epochs"),
        ("optim.epochs", "trainer.epochs"),
        ("trainer.epoch", "trainer.epochs"),
        ("learning_rate", None),
        ("optim.larning_rate.x", None),
        ("data.imagesize", "data.image_size"),
        ("model.arg.x", None),
        ("sed", "seed"),
    ],
)
def test_unknown_keys(key, hint):
    word, entry = failure(words=[f"--{key}", "1"]), failure({key: 1})
    assert word.startswith(f"--{key}: unknown key")
    assert entry.startswith(f"r.yaml: {key}: unknown key")
    if hint:
        assert word.endswith(f"; did you mean '{hint}'?")


@pytest.mark.parametrize(
    ("key", "text", "wanted"),
    [
        ("optim.lr", "abc", "must be a number"),
        ("optim.lr", "true", "must be a number"),
        ("optim.lr", "null", "must be a number"),
        ("optim.lr", "[1]", "must be a number"),
        ("trainer.epochs", "1.5", "must be a whole number"),
        ("trainer.epochs", "true", "must be a whole number"),
        ("trainer.devices", "all", "must be a whole number or auto"),
        ("trainer.compile", "1", "must be true or false"),
        ("trainer.epochs", "١٠", "must be a whole number"),
        ("optim.lr", "inf", "must be a number"),
        ("optim.lr", "nan", "must be a number"),
        ("optim.clip_grad", "x", "must be a number or null"),
        ("data.mean", "a", "must be a number or a list of numbers, such as [0.5, 0.5, 0.5]"),
        ("data.mean", "[1, a]", "must be a number or a list of numbers, such as [0.5, 0.5, 0.5]"),
        ("data.value_range", "0.5", "must be a list of 2 numbers, such as [0.5, 0.5]"),
        ("data.value_range", "[1, 2, 3]", "must be a list of 2 numbers, such as [0.5, 0.5]"),
        ("data.scale", "[a, b]", "must be a list of 2 numbers, such as [0.5, 0.5]"),
        ("model.args", "3", "must hold words as keys, such as {drop_path_rate: 0.1}"),
        ("model.args", "{1: 2}", "must hold words as keys, such as {drop_path_rate: 0.1}"),
        ("data.interpolation", "bicubik", "allowed: bilinear, bicubic; did you mean 'bicubic'?"),
        ("trainer.accelerator", "gpus", "allowed: auto, cpu, gpu, cuda, mps; did you mean 'gpu'?"),
    ],
)
def test_wrong_types(key, text, wanted):
    assert failure(words=[f"--{key}", text]) == f"--{key} is {text!r}, {wanted}"
    value = yaml.safe_load(text)
    assert failure({key: value}) == f"r.yaml: {key} is {value!r}, {wanted}"


def test_a_text_in_a_file_is_no_number_and_a_number_no_text():
    assert failure({"optim": {"lr": "1"}}) == "r.yaml: optim.lr is '1', must be a number"
    said = "must be a text or null; put a text in quotes"
    assert failure({"data": {"root": 5}}) == f"r.yaml: data.root is 5, {said}"
    assert failure({"data": {"root": False}}) == f"r.yaml: data.root is False, {said}"


def test_a_long_value_is_shortened():
    for said in (failure({"optim": {"lr": "x" * 10**5}}), failure(words=["--seed", "9" * 10**5])):
        assert len(said) < 200
        assert "…" in said


def test_an_empty_value_is_refused():
    """Of an unset variable in a script; as a path it would be the current folder."""
    for key in ("data.root", "model.weights", "optim.lr", "trainer.logger", "model.args.x"):
        wanted = f"--{key} is empty; leave it out, or give a value"
        assert failure(words=[f"--{key}", ""]) == wanted
        assert failure(words=[f"--{key}="]) == wanted
    said = failure({"data": {"root": ""}})
    assert said == "r.yaml: data.root is empty; leave it out, or write null"


def test_the_task_is_the_files_alone():
    allowed = ", ".join(RECIPES)
    assert failure({"task": "x"}) == f"r.yaml: task is 'x', allowed: {allowed}"
    assert failure({"task": ["x"]}) == f"r.yaml: task is ['x'], allowed: {allowed}"
    assert failure(words=["--task", "x"]) == "--task is 'x', allowed: classification"


@pytest.mark.parametrize(("task", "key"), NUMBERS)
@pytest.mark.parametrize("beyond", [False, True])
def test_ranges(task, key, beyond):
    kind = RECIPES[task]
    low, high = known_ranges(kind)[key]
    value, count = high + 1 if beyond else low - 1, count_numbers(kind, key)
    assert failure({"task": task, key: [value] * count if count > 1 else value}) == (
        f"{key} is {float(value) if is_float(kind, key) else value}, allowed: {low} to {high}"
    )


def test_not_a_number_is_out_of_range():
    assert failure({"optim": {"lr": math.nan}}) == "optim.lr is nan, allowed: 0 to 1000"


@pytest.mark.parametrize("kind", RECIPES.values())
def test_every_number_has_a_range(kind):
    keys = known_keys(kind)
    numbers = {key for key, wanted in keys.items() if "int" in str(wanted) or is_float(kind, key)}
    numbers -= {key for key in numbers if "Literal" in str(keys[key])} - {
        "optim.class_weights",
        "optim.pos_weight",
    }
    assert numbers | ({"trainer.devices", "data.fold"} & keys.keys()) == set(known_ranges(kind))


@pytest.mark.parametrize("key", ["scale", "ratio"])
def test_pairs_are_in_order(key):
    assert failure({"data": {key: [0.9, 0.5]}}).startswith(f"data.{key} is [0.9, 0.5], the first")


def test_milestones_are_in_order():
    for pair in ([11, 8], [8, 8]):
        said = failure({"task": "detection", "optim": {"milestones": pair}})
        assert said == f"optim.milestones is {pair}, the first must be the smaller"


def test_words_without_a_value():
    assert failure(words=["--optim.lr"]) == "--optim.lr needs a value"
    assert failure(words=["--optim.lr", "--seed", "1"]) == "--optim.lr needs a value"
    assert failure(words=["optim.lr", "1"]).startswith("unexpected argument 'optim.lr'")


def test_a_section_that_is_no_section():
    assert failure({"data": 3}).startswith("r.yaml: data is 3, must hold keys")
    assert failure({"model": None}).startswith("r.yaml: model is None, must hold keys")
    assert failure({1: 2}) == "r.yaml: 1: unknown key"


def test_unknown_recipe():
    said = failure(name="elvp")
    assert said == "unknown recipe 'elvp'; did you mean 'elpv'? (or give a .yaml file)"
    said = failure(name="coco/mask_rcnn_spanet_smal_1x")
    assert said.split("; ")[1].startswith("did you mean 'coco/mask_rcnn_spanet_small_1x'?")


def test_a_name_near_none_is_answered_with_all_recipes():
    said = failure(name="xyz")
    assert said.startswith("unknown recipe 'xyz'; known are ade20k/")
    assert all(name in said for name in list_recipes())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "holds no keys"),
        ("", "holds no keys"),
        ("just words", "holds no keys"),
        ("a: b: c\n", "is not YAML (line 1: mapping values are not allowed here)"),
        ("ok: 1\nx: [1, 2\n", "is not YAML (line 3: "),
        ("x: !!python/object/apply:os.getcwd []\n", "is not YAML (line 1: "),
        (b"\xff\xfe\x00", "is not a text file"),
        (
            "seed: 010",
            "line 1: '010' is 8 in YAML 1.1 and 10 in YAML 1.2; leave out the leading ze",
        ),
        (
            "\nseed: -1:30",
            "line 2: '-1:30' is a number to the base 60 in YAML 1.1; write the number",
        ),
        ("optim: {lr: 1:30.5}", "line 1: '1:30.5' is a number to the base 60"),
        ("optim: {lr: 1e400}", "line 1: '1e400' is beyond the numbers of a computer"),
        ("seed: !!int x", "line 1: 'x' does not fit its tag, int"),
        ("seed: !!bool x", "line 1: 'x' does not fit its tag, bool"),
        ("seed: !!set {x}", "is not YAML (line 1: the tag tag:yaml.org,2002:set is not allowed"),
    ],
)
def test_files_that_are_no_recipes(text, said, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert failure(name=str(path)).startswith(f"{path}: {said}")


def test_only_recipes_of_the_package_are_extended(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(f"extends: {path}\n")
    assert failure(name=str(path)).startswith(f"{path}: extends is {str(path)!r}, must be a recipe")
    path.write_text("extends: elvp\n")
    assert failure(name=str(path)).endswith("; did you mean 'elpv'?")


def test_missing_files(tmp_path):
    assert failure(name=f"{tmp_path}/r.yaml") == f"{tmp_path}/r.yaml: no such file"
    (tmp_path / "d.yaml").mkdir()
    said = f"{tmp_path}/d.yaml: cannot be read (it is a folder)"
    assert failure(name=f"{tmp_path}/d.yaml") == said
    assert failure(name="a\0.yaml") == r"a\x00.yaml: cannot be read (embedded null byte)"


@pytest.mark.parametrize("kind", ["pipe", "device", "link to a pipe"])
def test_what_is_no_regular_file_is_not_waited_for(kind, tmp_path):
    path = tmp_path / "r.yaml"
    if kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(tmp_path / "pipe" if "link" in kind else path)
    if "link" in kind:
        path.symlink_to(tmp_path / "pipe")
    assert failure(name=str(path)) == f"{path}: cannot be read (it is not a regular file)"


# ---- keys that stand twice


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("optim: {lr: 1}\nseed: 3\noptim: {lr: 2}\n", "optim stands in lines 1 and 3; keep one"),
        ("optim:\n  lr: 1\n  lr: 1\n", "lr stands in lines 2 and 3; keep one of them"),
        ("optim: {lr: 1, lr: 2}", "lr stands twice in line 1; keep one of them"),
        ("model: {args: {a: [{b: 1, b: 2}]}}", "b stands twice in line 1; keep one of them"),
        ("extends: elpv\nextends: photos\n", "extends stands in lines 1 and 2; keep one of them"),
        ("optim: {lr: 1}\noptim.lr: 2\n", "optim.lr stands in lines 1 and 2; keep one of them"),
        ("optim.lr: 2\noptim: {lr: 1}\n", "optim.lr stands in lines 1 and 2; keep one of them"),
        ("optim.lr: 2\n'optim.lr': 2\n", "optim.lr stands in lines 1 and 2; keep one of them"),
        ("model: {args: {a: 1}}\nmodel.args.a: 2\n", "model.args.a stands in lines 1 and 2; keep"),
        ("model: {args: {a: 1}}\nmodel.args: {}\n", "model.args stands in lines 1 and 2; keep one"),
        ("model: {1: a, 0x1: b}", "1 stands twice in line 1; keep one of them"),
        ("model: &m {name: a}\ndata: {<<: *m, <<: *m}", "<< stands twice in line 2; keep one"),
        ("optim: &o {lr: 1}\ndata: {<<: *o}\ndata.lr: 2", "data.lr is given twice; keep one"),
    ],
)
def test_a_key_that_stands_twice(text, said, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    assert failure(name=str(path)).startswith(f"{path}: {said}")


def test_a_key_given_in_two_forms_by_a_program():
    assert failure({"optim": {"lr": 1}, "optim.lr": 2}) == (
        "r.yaml: optim.lr is given twice; keep one of them"
    )


def test_arguments_of_the_model_are_added_to_or_replaced(tmp_path):
    """A recipe that extends another replaces its arguments as a whole, or sets one more."""
    base = load_recipe("imagenet/spanet_small").model.args
    assert base
    path = tmp_path / "r.yaml"
    path.write_text("extends: imagenet/spanet_small\nmodel.args.x: 1\n")
    assert load_recipe(str(path)).model.args == {**base, "x": 1}
    path.write_text("extends: imagenet/spanet_small\nmodel: {args: {x: 1}}\n")
    assert load_recipe(str(path)).model.args == {"x": 1}
    key = next(iter(base))
    path.write_text(f"extends: imagenet/spanet_small\nmodel.args.{key}: 0.5\n")
    assert load_recipe(str(path)).model.args == {**base, key: 0.5}
    path.write_text("model.args.x: 1\nmodel: {args: {y: 2}}\n")
    assert load_recipe(str(path)).model.args == {"x": 1, "y": 2}


# ---- files that would fill memory or never end

BOMBS = {
    "aliases": "a: &a [x, x]\n"
    + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in pairwise("abcdefghijklmnop")),
    "merges": "a: &a {k: 1}\n"
    + "".join(
        f"{b}: &{b} {{<<: [*{a}, *{a}], k{b}: 1}}\n" for a, b in pairwise("abcdefghijklmnop")
    ),
    "long texts": f"a: &a {'x' * 1000}\nb: [{'*a,' * 500}]",
    "itself": "a: &a [*a]",
    "depth": f"a: {'[' * 1800}{']' * 1800}",
    "open depth": f"a: {'[' * 100_000}",
    "nested keys": "{a: " * 1800,
    "block depth": "- " * 1800,
    "keys": "".join(f"k{i}: 1\n" for i in range(11_000)),
    "size": f"a: {'x' * 2**18}",
    "digits": f"a: {'9' * 5000}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_would_fill_memory_is_refused_at_once(name, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(BOMBS[name])
    assert len(failure(name=str(path))) < len(str(path)) + 250
    if name != "size":
        failure(words=["--model.args", f"{{{BOMBS[name]}}}"])


def bomb(levels: int) -> dict:
    value = "x"
    for _ in range(levels):
        value = [value, value]
    return {"model": {"args": {"x": value}}}


def test_values_of_a_checkpoint_are_bounded_as_well():
    """They are no YAML, and what stands in several places there is one object."""
    said = failure(bomb(60))
    assert said.startswith("r.yaml: ")
    assert failure(bomb(30)) == "r.yaml: holds more than 10,000 values"
    assert parse_recipe(bomb(10)).model.args
    itself: list = []
    itself.append(itself)
    assert failure({"model": {"args": {"x": itself}}}) == "r.yaml: is nested deeper than 50 levels"
    assert failure({"seed": 10**2000}) == "r.yaml: holds a whole number of more than 1,000 digits"


# ---- YAML that is written and read back

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.from_regex(r"[-+]?[0-9_.:eExo]{1,6}", fullmatch=True)
    | st.sampled_from(["yes", "NO", "~", "null", "", "<<", "=", "2020-01-01", "1e3", "0o10", "08"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(plain)
def test_what_is_written_as_yaml_is_read_back(value):
    assert load_yaml(dump_yaml(value), "x") == value


@settings(deadline=None)
@given(plain)
def test_yaml_of_earlier_versions_keeps_its_meaning(value):
    """PyYAML wrote it, and read 1e3 as a text."""
    text = yaml.safe_dump(value)
    try:
        before = yaml.load(text, _Before)
    except ValueError:  # a date that is none
        return
    try:
        assert load_yaml(text, "x") == before
    except UsageError as error:  # infinity before
        assert "is beyond the numbers of a computer" in str(error)


class _Before(yaml.SafeLoader):
    """As recipes were read up to version 0.1; dates are texts now."""


_Before.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    # It had no end, and took 0E0:0 for a number; that was wrong.
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


# ---- keys and what is said about them


def test_the_page_of_keys_is_up_to_date():
    page = Path(__file__).parents[2] / "docs/recipe-keys.md"
    assert page.read_text("utf-8") == keys_page(), "run `make docs-keys`"


@pytest.mark.parametrize("kind", RECIPES.values())
def test_a_printed_recipe_explains_every_key(kind):
    printed = print_recipe(kind())
    words = " ".join(printed.replace("#", " ").split())
    for name, key in read_keys(kind).items():
        assert re.search(rf"^ *{name.rpartition('.')[2]}:", printed, re.MULTILINE)
        assert key.help in words
    assert "# Epochs between validations. [1 to 1000000]\n  val_every: 1\n" in printed


@settings(deadline=None)
@given(st.data())
def test_a_printed_recipe_is_read_back(data):
    arguments = st.dictionaries(st.text(max_size=5), plain, max_size=3)
    recipe = load_recipe(data.draw(st.sampled_from(list_recipes())))
    recipe.model.args, recipe.trainer.logger_args = data.draw(arguments), data.draw(arguments)
    recipe.data.root = data.draw(st.text(max_size=200))
    assert load_yaml(print_recipe(recipe), "x") == recipe.to_dict()


@pytest.mark.parametrize("kind", RECIPES.values())
def test_every_key_has_a_help_sentence(kind):
    for key in read_keys(kind).values():
        assert re.fullmatch(r"\S.+\.", key.help), key.name


def test_a_changed_default_inherits_help_and_range():
    base, changed = (
        read_keys(RECIPES[task])["optim.lr"] for task in ("classification", "detection")
    )
    assert (base.default, changed.default) == (1e-3, 1e-4)
    assert (base.help, base.between) == (changed.help, changed.between)
