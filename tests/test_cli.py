"""The command line: one line for every mistake, the right exit status, and output for machines."""

import ast
import errno
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_runs import call, call_without_torch

import spanets
import spanets_cli
from spanets_cli.parser import make_parser

COMMANDS = ("models", "train", "eval", "predict")


# ---- help and usage


@pytest.mark.parametrize(
    "words",
    [[], ["--version"], ["--help"], *([name, "--help"] for name in COMMANDS), ["models"]],
    ids=" ".join,
)
def test_answers_without_torch(words):
    """So in under a second, which importing torch alone takes."""
    status, printed, said = call_without_torch(*words)
    assert (status, said) == (0, "")
    assert printed


def test_a_bare_call_prints_the_help(capsys):
    status, printed, said = call(capsys)
    assert (status, said) == (0, "")
    assert printed.startswith("usage: spanets [--help]")
    assert call(capsys, "--help") == (0, printed, "")


def test_the_version(capsys):
    assert call(capsys, "--version") == (0, f"spanets {spanets.__version__}\n", "")
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", spanets.__version__)


HEAVY = {"lightning", "matplotlib", "onnx", "gradio", "torchmetrics", "tensorboard"}


def imported_with(name: str) -> set[str]:
    """Returns the modules that a module of ours imports outside of functions, with their parents.

    Names that it takes from modules are among them.
    """
    path = Path(spanets.__file__).parent.parent.joinpath(*name.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not file.exists():  # another library's, or no module
        return set()
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(file.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif not (
            isinstance(node, ast.FunctionDef)
            or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        ):
            nodes += ast.iter_child_nodes(node)
    parts = [name.split(".") for name in found]
    return {".".join(name[:length]) for name in parts for length in range(1, len(name) + 1)}


def all_imported_with(*names: str) -> set[str]:
    """Returns what modules import, and what that imports of ours, and so on.

    Read from the sources: a fresh process takes seconds to import torch and timm.
    """
    seen, new = set(), set(names)
    while new:
        seen |= new
        new = set().union(*map(imported_with, new)) - seen
    return seen


def test_importing_the_package_imports_no_library_of_an_extra():
    seen = all_imported_with("spanets")
    assert {"timm", "torch", "spanets.mixers.spam"} <= seen
    assert not HEAVY & seen


def test_evaluating_a_classifier_imports_no_trainer():
    """Lightning would add a tenth to the start."""
    seen = all_imported_with(
        "spanets.classification.evaluation",
        "spanets.classification.task",
        "spanets.runs.listing",
        "spanets.training.using",
    )
    assert "torchmetrics" in seen
    assert not {"lightning", "matplotlib"} & seen


@pytest.mark.slow
def test_a_fresh_process_imports_only_what_it_needs():
    script = f"import sys, spanets; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("module", ["spanets", "spanets_cli"])
def test_packages_are_commands(module, monkeypatch, capsys):
    """As in `python -m spanets`."""
    monkeypatch.setattr(sys, "argv", ["spanets", "models", "zzz"])
    with pytest.raises(SystemExit) as leaving:
        runpy.run_module(module, run_name="__main__")
    assert leaving.value.code == 2
    assert capsys.readouterr().err.startswith("spanets: no model matches 'zzz'")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian", "elpv"], "unknown command 'trian'; did you mean 'train'? (see spanets --help)"),
        (
            ["x"],
            "unknown command 'x'; known are models, weights, predict, eval, explain, explore, "
            "embed, analyze, train, runs, report, study, stats, convert, shard, export, bench, "
            "push, completion (see spanets --help)",
        ),
        (["train"], "the following arguments are required: recipe (see spanets train --help)"),
        (["train", "elpv", "--out"], "argument --out: expected one argument"),
        (["predict", "a.ckpt"], "the following arguments are required: IMAGE"),
        (["predict", "a.ckpt", "b.png", "--top", "0"], "argument --top: 0 is no whole number from"),
        (["predict", "a.ckpt", "b.png", "--top", "-3"], "argument --top: -3 is no whole number fr"),
        (["predict", "a.ckpt", "b.png", "--top", "x"], "argument --top: x is no whole number from"),
        (
            ["predict", "a.ckpt", "b.png", "--jsn"],
            "unrecognized arguments: --jsn; did you mean '--json'? (see spanets predict --help)",
        ),
        (
            ["explore", "--bnd=1"],
            "unrecognized arguments: --bnd=1; did you mean '--band'? (see spanets explore --help)",
        ),
        (
            ["weights", "list", "--jsno"],
            "unrecognized arguments: --jsno; did you mean '--json'? (see spanets weights list -",
        ),
        (["eval", "a", "--xyzzy", "3"], "unrecognized arguments: --xyzzy 3 (see spanets eval --h"),
        (["eval", "a.ckpt", "--batch", "0"], "argument --batch: 0 is no whole number from 1 to"),
        (["eval", "a.ckpt", "--workers", "-1"], "argument --workers: -1 is no whole number from 0"),
        (["models", "a", "b"], "unrecognized arguments: b"),
        (["models", "*smal"], "no model matches '*smal'; did you mean 'spanet_small'?"),
        (["train", "elvp"], "unknown recipe 'elvp'; did you mean 'elpv'? (or give a "),
        (["train", "none.yaml"], "none.yaml: no such file"),
        (
            ["train", "elpv", "--epochs", "3"],
            "--epochs: unknown key; did you mean 'trainer.epochs'",
        ),
        (["train", "elpv", "--trainer.epochs"], "--trainer.epochs needs a value"),
        (
            ["train", "elpv", "--trainer.epochs", "x"],
            "--trainer.epochs is 'x', must be a whole num",
        ),
        (["train", "elpv", "--trainer.epochs", "0"], "trainer.epochs is 0, allowed: 1 to 1000000"),
        (["train", "elpv", "--resum"], "--resum: unknown key"),
        (["train", "elpv", "more"], "unrecognized arguments: more"),
    ],
)
def test_usage_errors(words, said, refused):
    assert refused(2, *words).startswith(said)


def test_paths_may_begin_with_the_home_folder(monkeypatch):
    """A shell leaves the `~` of --out=~/x as it is."""
    monkeypatch.setenv("HOME", "/home/me")
    paths = re.compile(r"FILE|DIR|RUN|CHECKPOINT|IMAGE|STUDY|DATA|IN|MODEL")

    def arguments_of(parser):
        for action in parser._actions:
            if isinstance(action.choices, dict):
                for inner in action.choices.values():
                    yield from arguments_of(inner)
            elif isinstance(action.metavar, str):
                yield action

    found = [a for a in arguments_of(make_parser()) if paths.match(a.metavar)]
    assert len(found) > 40
    for action in found:
        assert action.type is not None and action.type("~/x") == "/home/me/x", action


def test_keys_stand_anywhere(capsys):
    for words in (
        ["--optim.lr", "1e-3", "elpv", "--print-recipe", "--seed=5"],
        ["elpv", "--seed", "5", "--print-recipe", "--optim.lr=1e-3"],
    ):
        status, printed, _ = call(capsys, "train", *words)
        assert status == 0
        assert "lr: 0.001\n" in printed
        assert "seed: 5\n" in printed


def test_a_printed_recipe_is_a_recipe(capsys, tmp_path):
    _, printed, _ = call(capsys, "train", "elpv", "--trainer.epochs", "7", "--print-recipe")
    (tmp_path / "r.yaml").write_text(printed)
    assert call(capsys, "train", tmp_path / "r.yaml", "--print-recipe")[1] == printed


def test_debug_shows_the_traceback(capsys):
    status, _, said = call(capsys, "train", "elvp", "--debug")
    assert status == 2
    assert said.startswith("Traceback")
    assert said.splitlines()[-1].startswith("spanets: unknown recipe")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 1, "spanets: stopped\n"),
        (torch.OutOfMemoryError("x"), 1, "spanets: the GPU's memory is full; "),
    ],
)
def test_what_ends_a_command(error, status, said, capsys, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr("spanets_runtime.model_table.model_table", fail)
    found, _, answered = call(capsys, "models")
    assert found == status
    assert answered.startswith(said)


def test_defects_keep_their_traceback(monkeypatch, capsys):
    def fail(_):
        raise ValueError("a\x1b[2J")

    monkeypatch.setattr("spanets_runtime.model_table.model_table", fail)
    status, printed, said = call(capsys, "models")
    assert (status, printed) == (1, "")
    assert said.startswith("Traceback (most recent call last):")
    assert said.endswith("ValueError: a\\x1b[2J\n")


def test_a_reader_that_has_enough(process):
    """Such as `head`."""

    def into_a_closed_pipe() -> int:
        there, here = os.pipe()
        os.close(there)
        os.dup2(here, 1)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        return spanets_cli.main(["models", "spanet_nano"])

    status, _, said = process(into_a_closed_pipe).wait()
    assert (status, said) == (1, "")


# ---- models


def test_models(capsys):
    status, printed, _ = call(capsys, "models", "spanet_[ns]*")
    assert status == 0
    header, nano, small = printed.splitlines()
    assert re.split(r"\s{2,}", header)[:2] == ["model", "parameters (M)"]
    assert re.split(r"\s{2,}", nano) == ["spanet_nano", "1.1", "0.2", "none"]
    assert re.split(r"\s{2,}", small)[:4] == ["spanet_small", "28.6", "4.6", "83.1"]
    # Numbers end in one column.
    assert nano.index("1.1") + 3 == small.index("28.6") + 4

    _, printed, _ = call(capsys, "models", "spanet_nano", "--json")
    (row,) = json.loads(printed)
    assert row["model"] == "spanet_nano"


# ---- predict


def test_predict(small_run, photos, capsys):
    checkpoint, image = small_run / "last.ckpt", photos / "cat/0.png"
    status, printed, said = call(capsys, "predict", checkpoint, image, photos / "dog", "--top", "1")
    assert (status, said) == (0, "")
    lines = printed.splitlines()
    assert len(lines) == 9
    assert re.fullmatch(re.escape(str(image)) + r": (cat|dog) [01]\.\d{3}", lines[0])


def test_predict_json(small_run, photos, capsys):
    image = photos / "cat/0.png"
    status, printed, _ = call(capsys, "predict", small_run / "last.ckpt", image, "--json")
    assert status == 0
    (row,) = json.loads(printed)
    assert list(row) == ["image", "predictions"]
    assert row["image"] == str(image)
    assert [list(prediction) for prediction in row["predictions"]] == [["label", "probability"]] * 2
    assert {prediction["label"] for prediction in row["predictions"]} == {"cat", "dog"}
    assert all(type(prediction["probability"]) is float for prediction in row["predictions"])
    assert sum(p["probability"] for p in row["predictions"]) == pytest.approx(1, abs=1e-6)


def test_predict_goes_on_after_unreadable_images(small_run, photos, tmp_path, capsys):
    (tmp_path / "bad.png").write_text("no image")
    images = [tmp_path / "bad.png", photos / "cat/0.png", tmp_path / "none.png"]
    status, printed, said = call(capsys, "predict", small_run / "last.ckpt", *images, "--json")
    assert status == 1
    assert [row["image"] for row in json.loads(printed)] == [str(images[1])]
    bad, none = said.splitlines()
    assert bad.startswith(f"spanets: {tmp_path}/bad.png: not an image, or none of JPEG, ")
    assert none == f"spanets: {tmp_path}/none.png: no such file"

    status, printed, said = call(capsys, "predict", small_run / "last.ckpt", *images[::2], "--json")
    assert (status, json.loads(printed)) == (1, [])
    assert len(said.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "accepted"),
    [
        (["predict", "a.pt2", "a.png"], "FILE.onnx or a checkpoint"),
        (["eval", "a.pt2"], "FILE.onnx or a checkpoint"),
        (["explain", "a.pt2", "a.png", "--out", "out"], "a checkpoint"),
        (["push", "a.pt2", "--to", "out"], "a checkpoint"),
        (
            ["analyze", "a.pt2", "--images", "images", "--out", "out"],
            "a timm model's name, a checkpoint, or module:function",
        ),
    ],
)
def test_a_torch_export_program_is_refused(words, accepted, refused):
    assert refused(2, *words) == f"a.pt2 is a torch.export program; {words[0]} takes {accepted}"


def test_predict_an_empty_folder(small_run, photos, tmp_path, refused):
    """Said before anything else is done."""
    words = [small_run / "last.ckpt", photos / "cat/0.png", tmp_path]
    assert refused(1, "predict", *words) == f"{tmp_path}: a folder without images"


def test_names_that_are_no_utf8(small_run, photos, tmp_path, process):
    image = os.fsencode(tmp_path) + b"/\xff.png"
    try:
        Path(os.fsdecode(image)).write_bytes((photos / "cat/0.png").read_bytes())
    except OSError as error:
        assert error.errno == errno.EILSEQ
        pytest.skip("this file system takes UTF-8 alone")
    for more in ([], ["--json"]):
        words = ["predict", str(small_run / "last.ckpt"), os.fsdecode(image), *more]
        status, printed, said = process(lambda words=words: spanets_cli.main(words)).wait()
        assert (status, said) == (0, "")
        assert "\\udcff.png" in printed
