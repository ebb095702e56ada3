"""Reading a study: what is right is read, and each mistake is named in a line."""

import pytest

from spanets.experiments.cells import make_cells
from spanets.experiments.folder import compare
from spanets.experiments.study_file import parse_study
from spanets.recipe import read_recipe_values
from spanets_runtime.errors import UsageError

TEXT = """\
question: Which is better?
recipe: elpv
set: {trainer.epochs: 2}
factors:
  rate: {low: {optim.lr: 0.001}, high: {optim: {lr: 0.002}}}
  size: {64: {data.image_size: 64}, 96: {data.image_size: 96}}
seeds: [0, 1]
metric: {name: accuracy, better: higher}
baseline: {rate: low}
rules:
  - {name: faster, compare: {rate: high}, better_by: 0.01}
"""


def cells_of(text, out, trusted=False):
    study = parse_study(text, "s.yaml")
    return make_cells(study, read_recipe_values(study.recipe), out, trusted)


def test_cells_are_all_combinations_seed_by_seed(tmp_path):
    cells = cells_of(TEXT, tmp_path)
    assert [cell.seed for cell in cells] == [0] * 4 + [1] * 4
    assert [tuple(cell.levels.values()) for cell in cells[:4]] == [
        ("low", "64"), ("low", "96"), ("high", "64"), ("high", "96"),
    ]  # fmt: skip
    last = cells[-1]
    assert last.folder == tmp_path / "cells/rate=high,size=96/seed-1"
    recipe = last.recipe
    assert (recipe.optim.lr, recipe.data.image_size, recipe.trainer.epochs) == (0.002, 96, 2)
    assert (recipe.seed, recipe.data.split_seed, recipe.trainer.devices) == (1, 0, 1)


def test_all_cells_of_a_seed_have_one_split_and_order(tmp_path):
    cells = cells_of(TEXT + "split_by_seed: true\n", tmp_path)
    assert all(cell.recipe.seed == cell.recipe.data.split_seed == cell.seed for cell in cells)


def test_arguments_of_a_level_join_those_of_the_recipe(tmp_path):
    text = TEXT.replace("trainer.epochs: 2", "model.args.drop_rate: 0.1")
    text = text.replace("optim.lr: 0.001", "model.args.learn_balance: gate")
    (first, *_) = cells_of(text, tmp_path)
    assert first.recipe.model.args == {"drop_rate": 0.1, "learn_balance": "gate"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("question:", "qestion:", "unknown key 'qestion'; did you mean 'question'? (allowed: "),
        ("question: Which is better?\n", "", "question is missing"),
        ("recipe: elpv", "recipe: elpw", "recipe: unknown recipe 'elpw'; did you mean 'elpv'?"),
        ("optim.lr: 0.001", "optim.rl: 0.001", "rate low, size 64: optim.rl: unknown key"),
        ("optim.lr: 0.001", "optim.lr: fast", "optim.lr is 'fast', must be a number"),
        ("optim.lr: 0.001", "optim.lr: -1", "rate low, size 64: optim.lr is -1.0, allowed: 0"),
        ("optim.lr: 0.001", "seed: 3", "rate: low: seed is set by the study's own key, seeds"),
        ("optim.lr: 0.001", "data: {split_seed: 1}", "split_seed must be the same in all cells"),
        ("optim.lr: 0.001", "trainer.devices: 2", "trainer.devices is 2, must be 1; start a"),
        ("optim.lr: 0.001", "data.fold: all", "data.fold is 'all', must be one fold"),
        ("optim.lr: 0.001", "data.root: https://x/y", "data.root is an address"),
        ("optim.lr: 0.001", "data.image_size: 9", "rate and size both set data.image_size"),
        ("optim: {lr: 0.002}", "optim.lr: 0.001", "have the same recipe"),
        ("low: {optim.lr: 0.001}", "on: {optim.lr: 1}", "a name is read as True; quote it"),
        ("low: {optim.lr: 0.001}", "a/b: {optim.lr: 1}", "must be names of up to 40 letters"),
        ("low: {optim.lr: 0.001}", "low: 3", "rate: low is 3, must be recipe keys"),
        ("[0, 1]", "[0, 0]", "seeds is [0, 0], must be a list of different whole numbers"),
        ("[0, 1]", "3", "seeds is 3, must be a list"),
        ("better: higher", "better: up", "metric: better is 'up', must be higher or lower"),
        ("baseline: {rate: low}", "baseline: {rat: low}", "unknown factor 'rat'; did you mean 'ra"),
        ("baseline: {rate: low}", "baseline: {rate: lo}", "unknown level 'lo'; did you mean 'low'"),
        ("better_by: 0.01", "better_by: 0", "better_by is 0, must be a number above 0"),
        ("better_by: 0.01", "better_by: -0.1", "must be a number above 0, in the unit of the"),
        ("better_by: 0.01", "better_by: .nan", "must be a number above 0"),
        ("better_by: 0.01", "better: 0.01", "rules: 1: unknown key 'better'; did you mean 'bett"),
        (", better_by: 0.01", "", "rules: 1: has no bound; give one of better_by, no_worse_than"),
        ("better_by: 0.01", "better_by: 1, equal_within: 1", "has better_by and equal_within; "),
        ("compare: {rate: high}", "compare: {rate: low}", "compares rate low with itself"),
        ("compare: {rate: high}", "compare: {size: 96}", "names size, which neither baseline nor"),
        ("rules:", "rules: []\nset2:", "unknown key 'set2'; did you mean 'set'"),
    ],
)  # fmt: skip
def test_mistakes(old, new, said, tmp_path):
    assert old in TEXT
    with pytest.raises(UsageError) as error:
        cells_of(TEXT.replace(old, new), tmp_path)
    message = str(error.value)
    assert said in message
    assert message.startswith("s.yaml")
    assert "\n" not in message


def test_a_trusted_study_may_name_addresses(tmp_path):
    text = TEXT.replace("optim.lr: 0.001", "data.root: https://x/y")
    assert cells_of(text, tmp_path, trusted=True)


# ---- another study in the folder of one


def changes(tmp_path, *replaced, base=None):
    text = TEXT
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    values = read_recipe_values("elpv")
    studies = parse_study(TEXT, "s.yaml"), parse_study(text, "s.yaml")
    return compare(*studies, values, values if base is None else base, tmp_path)


def test_seeds_and_levels_may_be_added(tmp_path):
    assert changes(tmp_path) == []
    more = ("[0, 1]", "[0, 1, 7]"), ("size: {", "size: {128: {data.image_size: 128}, ")
    assert changes(tmp_path, *more) == ["seed 7 added", "size: level 128 added"]
    (said,) = changes(tmp_path, ("Which is", "What is"))
    assert said.startswith("other words of the question; before: Which is better?")


def test_what_changes_no_result_may_change(tmp_path):
    assert changes(tmp_path, ("{trainer.epochs: 2}", "{trainer.epochs: 2, data.workers: 4}")) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("better_by: 0.01", "better_by: 0.02", "rules: other than in"),
        ("better_by: 0.01", "equal_within: 0.01", "rules: other than in"),
        ("accuracy, better: higher", "loss, better: lower", "metric: other than in"),
        ("baseline: {rate: low}", "baseline: {size: 64, rate: low}", "other than in"),
        ("epochs: 2", "epochs: 3", "trainer.epochs is 3, in "),
        ("optim: {lr: 0.002}", "optim: {lr: 0.003}", "rate: high: optim.lr is 0.003, in "),
        ("[0, 1]", "[0]", "seeds: 1 is missing, and "),
        (", 96: {data.image_size: 96}", "", "size: 96 is missing, and "),
    ],
)
def test_a_study_does_not_change_after_it_began(old, new, said, tmp_path):
    with pytest.raises(UsageError) as error:
        changes(tmp_path, (old, new))
    assert said in str(error.value)
    assert "use another --out" in str(error.value)


def test_the_recipe_must_not_change_either(tmp_path):
    base = {**read_recipe_values("elpv"), "optim.weight_decay": 1.0}
    with pytest.raises(UsageError, match=r"elpv has changed since .* optim.weight_decay is 1.0"):
        changes(tmp_path, base=base)
