"""Recipes: every key has one right type and range, and a wrong one is named with the right one."""

import dataclasses
import math
from typing import get_args, get_origin

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from spanets.recipe import (
    RECIPES,
    ClassificationRecipe,
    known_keys,
    known_ranges,
    list_recipes,
    load_recipe,
    parse_recipe,
)
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
        (["--data.root", "null"], "data.root", None),
        (["--data.root=x=y"], "data.root", "x=y"),
        (["--seed", "7"], "seed", 7),
        (["--model.args", "{drop_path_rate: 0.1}"], "model.args", {"drop_path_rate": 0.1}),
        (["--model.args.a", "[3]", "--model.args.b", "1e-1"], "model.args", {"a": [3], "b": 0.1}),
    ],
)
def test_words_of_the_command_line(words, key, value):
    recipe = parse_recipe({"optim": {"lr": 0.5, "clip_grad": 9.0}}, words)
    section, _, name = key.rpartition(".")
    assert getattr(getattr(recipe, section) if section else recipe, name) == value


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
    return len(get_args(wanted)) if get_origin(wanted) is tuple else 1


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
        ("optim.lr", "", "must be a number"),
        ("optim.lr", "[1]", "must be a number"),
        ("optim.lr", "1" * 400, "must be a number"),
        ("optim.clip_grad", "x", "must be a number or null"),
        ("trainer.epochs", "1.5", "must be a whole number"),
        ("trainer.epochs", "true", "must be a whole number"),
        ("trainer.devices", "all", "must be a whole number or auto"),
        ("trainer.compile", "1", "must be true or false"),
        ("data.mean", "0.5", "must be a list of 3 numbers, such as [0.5, 0.5, 0.5]"),
        ("data.mean", "[1, 2]", "must be a list of 3 numbers, such as [0.5, 0.5, 0.5]"),
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


def test_a_text_in_a_file_is_no_number():
    assert failure({"optim": {"lr": "1"}}) == "r.yaml: optim.lr is '1', must be a number"
    assert failure({"data": {"root": 5}}) == "r.yaml: data.root is 5, must be a text or null"


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
    numbers -= {key for key in numbers if "Literal" in str(keys[key])}
    assert numbers | {"trainer.devices"} == set(known_ranges(kind))


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
    assert failure(name=f"{tmp_path}/r.yaml") == f"{tmp_path}/r.yaml: no such recipe file"
    (tmp_path / "d.yaml").mkdir()
    assert failure(name=f"{tmp_path}/d.yaml").startswith(f"{tmp_path}/d.yaml: cannot be read (")


@pytest.mark.parametrize("kind", RECIPES.values())
def test_documentation_names_every_key(kind):
    for section in dataclasses.fields(kind):
        if dataclasses.is_dataclass(section.type):
            for key in dataclasses.fields(section.type):
                assert key.name in section.type.__doc__, key.name
