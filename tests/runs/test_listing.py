"""`spanets runs`: folders in every state, their order, and what differs between them."""

import codecs
import fcntl
import json
import math
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_runs import call

import spanets_cli
from spanets.runs.comparing import comparison_rows, find_differences, table_rows
from spanets.runs.listing import COLUMNS, choose_runs, find_runs, read_run, sort_runs
from spanets_runtime.errors import UserError


def make_run(folder: Path, epochs: int = 2, lr: float = 1e-3, **files: str | None) -> Path:
    """Writes a finished run; `files` replace a file's text (None: no such file)."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"{e},{10 * e}.0,{1 / e},{0.5 + e / 10}" for e in range(1, epochs + 1)]
    start = {"started": "2026-01-02T03:04:05+00:00", "outcome": "finished"}
    written = {
        "recipe_yaml": yaml.safe_dump({"optim": {"lr": lr}, "trainer": {"epochs": 2}}),
        "metrics_csv": "\n".join(["epoch,seconds,train/loss,val/accuracy", *rows]),
        "results_json": json.dumps({"metrics": {"accuracy": lr * 100, "loss": 1, "auroc": None}}),
        "environment_json": json.dumps({"starts": [start]}),
    } | files
    for name, text in written.items():
        if text is not None:
            (folder / name.replace("_", ".")).write_text(text)
    return folder


def started(outcome: str | None) -> str:
    return json.dumps({"starts": [{"started": "2026-01-02T03:04:05+00:00", "outcome": outcome}]})


# ---- states


def test_a_finished_run(tmp_path):
    run = read_run(make_run(tmp_path / "a"), tmp_path)
    assert (run.name, run.status, run.problem) == ("a", "finished", None)
    assert (run.epochs, run.of_epochs, run.seconds) == (2, 2, 20)
    assert run.metrics == {"accuracy": 0.1, "loss": 1}  # undefined ones are left out
    assert run.recipe["optim.lr"] == 1e-3
    assert run.model == "spanet_nano"


@pytest.mark.parametrize("outcome", [None, "stopped"])
def test_an_interrupted_run(tmp_path, outcome):
    """By Ctrl-C, or by a kill, which leaves no word; its last validation is shown."""
    files = {"results_json": None, "environment_json": started(outcome)}
    run = read_run(make_run(tmp_path / "a", epochs=1, **files), tmp_path)
    assert (run.status, run.epochs, run.of_epochs) == ("interrupted", 1, 2)
    assert run.metrics == {"accuracy": 0.6}


def test_a_run_that_was_begun_again_is_not_finished(tmp_path):
    """The results are of the first time."""
    run = read_run(make_run(tmp_path / "a", environment_json=started("stopped")), tmp_path)
    assert run.status == "interrupted"


def test_a_failed_run(tmp_path):
    files = {"results_json": None, "environment_json": started("failed: the loss is nan")}
    run = read_run(make_run(tmp_path / "a", **files), tmp_path)
    assert (run.status, run.problem) == ("failed", "the loss is nan")


def test_a_running_run(tmp_path):
    folder = make_run(tmp_path / "a", results_json=None, environment_json=started(None))
    with (folder / ".running").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert read_run(folder, tmp_path).status == "running"
    assert read_run(folder, tmp_path).status == "interrupted"  # killed: the lock is no one's


def test_runs_of_older_versions_have_no_record(tmp_path):
    run = read_run(make_run(tmp_path / "a", environment_json=None), tmp_path)
    assert (run.status, run.started) == ("finished", None)


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("recipe_yaml", "optim: {lrr: 1}", "recipe.yaml: optim.lrr: unknown key"),
        ("recipe_yaml", "- 1", "recipe.yaml: holds no keys"),
        ("recipe_yaml", "a: [", "recipe.yaml: is not YAML"),
        ("metrics_csv", "epoch,seconds\n1,ten", "metrics.csv: damaged"),
        ("metrics_csv", "epoch\n1,2,3", "metrics.csv: damaged"),
        ("results_json", "{", "results.json: damaged"),
        ("results_json", '{"metrics": 3}', "results.json: damaged"),
    ],
)
def test_broken_runs_are_shown(tmp_path, capsys, file, text, problem):
    make_run(tmp_path / "good")
    make_run(tmp_path / "bad", **{file: text})
    status, printed, said = call(capsys, "runs", tmp_path)
    assert status == 0
    bad, good = printed.splitlines()[1:]
    assert bad.split()[:2] == ["bad", "broken"]
    assert good.split()[:2] == ["good", "finished"]
    assert said.startswith(f"bad: broken: {problem}")


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("name", ["recipe.yaml", "metrics.csv", "results.json", "environment.json"])
@pytest.mark.parametrize(
    "damage",
    ["folder", "pipe", "link to nothing", "binary", "empty", "half", "deep", "device", "closed"],
)
def test_a_damaged_file_hides_no_other_run(name, damage, tmp_path, capsys):
    """Whatever has become of it: each other run is listed, and this one with its state."""
    make_run(tmp_path / "good")
    path = make_run(tmp_path / "bad") / name
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "pipe":
        os.mkfifo(path)  # to open it would wait for ever
    elif damage in ("link to nothing", "device"):
        path.symlink_to("nothing" if damage == "link to nothing" else "/dev/zero")
    elif damage != "closed":
        texts = {"binary": bytes(range(256)), "empty": b"", "half": content[: len(content) // 2]}
        path.write_bytes({**texts, "deep": DEEP.encode()}[damage])
    status, printed, said = call(capsys, "runs", tmp_path)
    assert status == 0
    bad, good = printed.splitlines()[1:]
    assert good.split()[:2] == ["good", "finished"]
    assert bad.split()[:2] in (["bad", state] for state in ("broken", "finished", "interrupted"))
    assert said == "" or said.startswith("bad: broken: ")
    assert said.count("\n") == (bad.split()[1] == "broken")
    assert call(capsys, "runs", tmp_path, "--json")[0] == 0
    assert call(capsys, "runs", tmp_path, "bad", "good")[0] == 0


@given(st.data())
@settings(deadline=None)
def test_flipped_and_missing_bytes_hide_no_other_run(data):
    with tempfile.TemporaryDirectory() as root:
        make_run(Path(root, "good"))
        bad = make_run(Path(root, "bad"), epochs=data.draw(st.integers(0, 3)))
        path = data.draw(st.sampled_from(sorted(bad.iterdir())))
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 5))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        runs = find_runs(root)
        assert [run.name for run in runs] == ["bad", "good"]
        assert runs[1].status == "finished"
        table_rows(runs), comparison_rows(runs), json.dumps([run.to_dict() for run in runs])
        for key in COLUMNS:
            sort_runs(runs, key)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("results.json", '{"metrics": {"accuracy": 1e400, "loss": 1%s}}' % ("0" * 400)),
        ("results.json", '{"metrics": {"accuracy": {}}}'),
        ("metrics.csv", "epoch,seconds\n1,1e300\n2,inf"),
        ("metrics.csv", "epoch,seconds\n1,-1\n"),
        ("environment.json", '{"starts": [{"started": 5, "outcome": {"a": []}}]}'),
        ("environment.json", '{"starts": [{"started": null, "outcome": 0}]}'),
    ],
)
def test_odd_values_hide_no_other_run(name, text, tmp_path, capsys):
    make_run(tmp_path / "good")
    (make_run(tmp_path / "bad") / name).write_text(text)
    for words in ([], ["--sort", "started"], ["--sort", "seconds"], ["--json"]):
        status, printed, _ = call(capsys, "runs", tmp_path, *words)
        assert status == 0 or "--json" in words  # which has no infinities, and says so
        assert "good" in printed


def test_a_folder_that_may_not_be_entered_hides_no_run(tmp_path_factory, process):
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        make_run(Path(root, "good"))
        for name, mode in (("closed", 0o600), ("unlisted", 0o311), ("shut", 0o000)):
            make_run(Path(root, name)).chmod(mode)

        codecs.lookup("utf-8-sig")  # Python itself may lie where others may not read

        def list_as_anyone() -> int:
            if os.geteuid() == 0:
                os.seteuid(65534)
            return spanets_cli.main(["runs", root])

        status, printed, said = process(list_as_anyone).wait()
        assert status == 0, said
        states = {line.split()[0]: line.split()[1] for line in printed.splitlines()[1:]}
        assert states["good"] == "finished"
        assert states["closed"] == states["shut"] == "broken"
        assert "recipe.yaml: cannot be read (Permission denied)" in said
        for name in ("closed", "unlisted", "shut"):
            Path(root, name).chmod(0o755)


@pytest.mark.parametrize("text", ["{", "[]", '{"starts": 1}', '{"starts": [1]}', "null"])
def test_a_damaged_record_is_as_none(tmp_path, text):
    assert read_run(make_run(tmp_path / "a", environment_json=text), tmp_path).status == "finished"


# ---- many


def test_runs_are_found_at_any_depth(tmp_path):
    for name in ("b", "a", "deep/er/c", ".hidden/d"):
        make_run(tmp_path / name)
    make_run(tmp_path / "a/csv")  # a run's own folders are its own business
    assert [run.name for run in find_runs(tmp_path)] == ["a", "b", "deep/er/c"]
    assert [run.name for run in find_runs(tmp_path / "a")] == ["a"]


def test_sorting(tmp_path):
    make_run(tmp_path / "a", lr=1e-3)
    make_run(tmp_path / "b", lr=3e-3, epochs=1)
    make_run(tmp_path / "c", results_json=None, metrics_csv="epoch\n", environment_json=None)
    runs = find_runs(tmp_path)
    assert [run.name for run in sort_runs(runs, "accuracy")] == ["b", "a", "c"]
    assert [run.name for run in sort_runs(runs, "seconds")] == ["b", "a", "c"]
    assert [run.name for run in sort_runs(runs, "epochs")] == ["c", "b", "a"]
    with pytest.raises(UserError) as caught:
        sort_runs(runs, "acuracy")
    assert str(caught.value).endswith("loss; did you mean 'accuracy'?")
    assert caught.value.exit_status == 2


def test_differences(tmp_path, capsys):
    make_run(tmp_path / "a", lr=1e-3)
    make_run(tmp_path / "b", lr=3e-3)
    runs = choose_runs([str(tmp_path), "a", "b"])
    assert find_differences(runs) == {"optim.lr": [1e-3, 3e-3]}
    status, printed, _ = call(capsys, "runs", tmp_path, "b", "a")
    assert status == 0
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines()[1:]}
    assert rows["optim.lr"] == ["0.003", "0.001"]
    assert rows["accuracy"] == ["0.3000", "0.1000"]
    # Two folders, in place of two names in one.
    assert call(capsys, "runs", tmp_path / "b", tmp_path / "a")[1] == printed
    found = json.loads(call(capsys, "runs", tmp_path, "a", "b", "--json")[1])
    assert found["differences"] == {"optim.lr": [1e-3, 3e-3]}
    assert found["runs"][0]["metrics"]["accuracy"] == 0.1
    assert find_differences(runs[:1]) == {}


def test_curves(tmp_path, capsys):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", metrics_csv=None, results_json=None)
    picture = tmp_path / "curves.png"
    assert call(capsys, "runs", tmp_path, "--plot", picture)[0] == 0
    assert min(Image.open(picture).size) > 300


def test_mistakes(tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused(1, "runs") == "runs: no such folder"
    (tmp_path / "empty").mkdir()
    assert refused(1, "runs", "empty").startswith("empty: no runs in it; `spanets train` writes")
    make_run(tmp_path / "runs/first")
    line = refused(1, "runs", "runs", "frist", "first")
    assert line == "runs: no run 'frist'; did you mean 'first'?"
    line = refused(2, "runs", "--plot", "a.gif")
    assert line.startswith("--plot a.gif: the suffix must be .png")
    assert refused(2, "runs", "--sort", "x").startswith("--sort x: allowed: name, status")


def test_nan_is_sorted_to_the_end(tmp_path):
    make_run(tmp_path / "a")
    values = {"a": 0.1, "b": math.nan, "c": 0.9, "d": math.nan, "e": 0.5}
    run = find_runs(tmp_path)[0]
    runs = [replace(run, name=name, metrics={"f1": value}) for name, value in values.items()]
    assert [run.name for run in sort_runs(runs, "f1")] == ["c", "e", "a", "b", "d"]
