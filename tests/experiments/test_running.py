"""Studies in folders: what is missing is trained, each cell once; failures are told."""

import json
import os
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from small_runs import call

import spanets_cli
from spanets.experiments import running, work
from spanets.experiments.folder import read_history
from spanets.experiments.launchers import stand_alone
from spanets.experiments.planning import describe_hours
from spanets.experiments.study_file import parse_study
from spanets.experiments.summary import summarise_study
from spanets.experiments.work import plan_study, run_study
from spanets.runs.claiming import claimed
from spanets.runs.record import read_starts, recorded
from spanets.training.errors import StoppedError
from spanets_runtime.errors import UsageError, UserError

ROOT = Path(__file__).parents[2]
TEXT = """\
question: Which rate is better?
recipe: elpv
factors: {rate: {low: {optim.lr: 0.001}, high: {optim.lr: 0.002}}}
seeds: [0, 1, 2]
metric: {name: accuracy, better: higher}
baseline: {rate: low}
rules: [{name: faster, compare: {rate: high}, better_by: 0.01}]
"""


def study_of(text=TEXT, *replaced):
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    return parse_study(text, "s.yaml")


class Trainer:
    """Stands for the engine: a cell takes a moment, and its accuracy is known."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.fails: dict[tuple[float, int], BaseException] = {}

    def __call__(self, recipe, out, resume=False):
        key = (recipe.optim.lr, recipe.seed)
        with recorded(out):
            with self.log.open("a") as file:
                file.write(f"{key} {resume}\n")
            (out / "metrics.csv").write_text("epoch\n1\n")
            if key in self.fails:
                raise self.fails[key]
            value = 0.5 + recipe.optim.lr * 50 + recipe.seed / 100
            values = {"metrics": {"accuracy": value, "loss": 1.0}, "train_seconds": 2.0}
            (out / "results.json").write_text(json.dumps(values))

    @property
    def calls(self):
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    found = Trainer(tmp_path / "log")
    monkeypatch.setattr(running, "train_claimed", found)
    monkeypatch.setattr(running, "_write_cost", lambda cell: None)
    monkeypatch.setattr(running, "_PAUSE", 0.05)
    monkeypatch.setattr(work, "write_page", lambda results, out: None)  # drawing takes time
    return found


@pytest.fixture
def said():
    return []


def test_what_is_missing_is_trained_once(trainer, tmp_path, said):
    out = tmp_path / "study"
    assert plan_study(study_of(), out, said.append)["hours"] is None
    assert not out.exists()
    found = run_study(study_of(), out, said.append)
    assert [line.split(")")[0] for line in trainer.calls] == [
        f"({rate}, {seed}" for seed in range(3) for rate in (0.001, 0.002)
    ]
    assert found["counts"] == {"finished": 6}
    (verdict,) = found["verdicts"]
    assert verdict["verdict"] == "holds"
    assert said[0] == f"cell 1 of 6: rate low, seed 0: {out}/cells/rate=low/seed-0"
    assert {path.name for path in out.iterdir() if path.suffix} == {
        *("study.yaml", "base.yaml", "history.jsonl"),
        *("results.json", "table.csv"),
    }
    again = run_study(study_of(), out, said.append)
    assert len(trainer.calls) == 6
    assert again["combinations"] == found["combinations"]
    stored = json.loads((out / "results.json").read_text())
    assert summarise_study(study_of().design(), stored["cells"])["verdicts"] == found["verdicts"]


def test_seeds_may_follow_and_are_noted(trainer, tmp_path, said):
    out = tmp_path / "study"
    run_study(study_of(), out, said.append)
    more = study_of(TEXT, ("[0, 1, 2]", "[0, 1, 2, 3]"))
    plan = plan_study(more, out, said.append)
    assert (plan["left"], plan["counts"]["missing"]) == (2, 2)
    assert plan["hours"] is not None
    assert said[-1] == "seed 3 added"
    found = run_study(more, out, said.append)
    assert len(trainer.calls) == 8
    assert found["notes"][-1].endswith(": seed 3 added")
    with pytest.raises(UsageError, match="seeds: 3 is missing"):
        run_study(study_of(), out, said.append)


def test_a_rule_is_not_written_after_its_result(trainer, tmp_path, said):
    out = tmp_path / "study"
    other = study_of(TEXT, ("0.01}", "0.02}"))
    trainer.fails = {(rate, seed): UserError("no data") for rate in (0.001, 0.002)
                     for seed in range(3)}  # fmt: skip
    run_study(study_of(), out, said.append)
    for path in out.glob("cells/*/*/metrics.csv"):  # none finished an epoch
        path.unlink()
    run_study(other, out, said.append)
    assert read_history(out)[-1]["what"] == "changed before any cell had finished an epoch"
    trainer.fails = {}
    run_study(other, out, said.append, retry=True)
    with pytest.raises(UsageError, match=r"rules: other than in .* use another --out"):
        run_study(study_of(), out, said.append)
    with pytest.raises(UsageError, match="metric: other than in"):
        run_study(study_of(TEXT, ("0.01}", "0.02}"), ("accuracy", "loss")), out, said.append)


def test_the_name_of_a_metric_may_be_corrected(trainer, tmp_path, said):
    out = tmp_path / "study"
    with pytest.raises(UserError, match="has no metric acuracy, it has accuracy, loss; correct"):
        run_study(study_of(TEXT, ("accuracy", "acuracy")), out, said.append)
    assert len(trainer.calls) == 1  # at once
    assert run_study(study_of(), out, said.append)["counts"] == {"finished": 6}
    assert read_history(out)[-1]["what"] == "metric acuracy, which no cell has, became accuracy"


def test_files_of_others_are_not_replaced(tmp_path, said):
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(UsageError, match=r"holds no study, but other files, such as results\.json"):
        run_study(study_of(), tmp_path, said.append)


def test_wrong_arguments_of_a_model_are_found_before_the_first_cell(trainer, tmp_path, said):
    wrong = study_of(TEXT, ("optim.lr: 0.002", "model.args.learn_balance: gat"))
    with pytest.raises(UsageError, match=r"s.yaml: rate high: .* learn_balance is 'gat'"):
        run_study(wrong, tmp_path / "study", said.append)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("error", [UserError("the disk is full"), RuntimeError("a bug")])
def test_a_failure_is_recorded_and_tried_again_when_asked(trainer, tmp_path, said, error):
    out = tmp_path / "study"
    trainer.fails = {(0.002, 1): error}
    found = run_study(study_of(), out, said.append)
    assert found["counts"] == {"finished": 5, "failed": 1}
    assert any(str(error) in note for note in found["notes"])
    assert any(line.startswith("failed: rate high, seed 1: ") for line in said)
    assert found["combinations"][1]["n"] == found["verdicts"][0]["gain"]["n"] == 2
    trainer.fails = {}
    assert run_study(study_of(), out, said.append)["counts"]["failed"] == 1
    assert len(trainer.calls) == 6
    plan = plan_study(study_of(), out, said.append)
    assert plan["left"] == 0
    assert describe_hours(plan) == "nothing is left to train but failed cells, with --retry"
    assert plan_study(study_of(), out, said.append, retry=True)["left"] == 1
    assert run_study(study_of(), out, said.append, retry=True)["counts"] == {"finished": 6}
    assert trainer.calls[-1] == "(0.002, 1) True"  # resumed


def test_a_stopped_cell_is_resumed(trainer, tmp_path, said):
    out = tmp_path / "study"
    trainer.fails = {(0.002, 0): StoppedError("stopped")}
    with pytest.raises(StoppedError, match="stopped in rate high, seed 0; go on with the same"):
        run_study(study_of(), out, said.append)
    assert plan_study(study_of(), out, said.append)["counts"] == {
        "finished": 1,
        "failed": 0,
        "running": 0,
        "interrupted": 1,
        "missing": 4,
    }
    trainer.fails = {}
    assert run_study(study_of(), out, said.append)["counts"] == {"finished": 6}
    assert trainer.calls[2] == "(0.002, 0) True"


# ---- several processes


def test_a_claimed_cell_is_left_or_awaited(trainer, tmp_path, said, monkeypatch):
    out = tmp_path / "study"
    with ExitStack() as elsewhere:
        elsewhere.enter_context(claimed(out / "cells/rate=low/seed-1"))
        # The folder of cells exists before the study: as if another process had begun it.
        (out / "study.yaml").write_text(TEXT)
        (out / "base.yaml").write_text("{}")
        found = run_study(study_of(), out, said.append)
        assert found["counts"] == {"finished": 5, "running": 1}
        assert plan_study(study_of(), out, said.append)["counts"]["running"] == 1
        # It ends without a result while we wait, so we take it over.
        monkeypatch.setattr(time, "sleep", lambda _: elsewhere.close())
        found = run_study(study_of(), out, said.append, wait=True)
    assert found["counts"] == {"finished": 6}


def test_processes_share_the_cells(trainer, tmp_path, process):
    out = tmp_path / "study"

    def share() -> int:
        run_study(study_of(), out, lambda line: None)
        return 0

    running_now = [process(share) for _ in range(3)]
    assert [one.wait()[0] for one in running_now] == [0, 0, 0]
    assert len(trainer.calls) == len(set(trainer.calls)) == 6
    stored = json.loads((out / "results.json").read_text())
    assert stored["counts"] == {"finished": 6}
    assert [line["what"] for line in stored["history"]] == ["begun"]


def test_a_launcher_s_processes_do_not_join():
    given = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "a", "HOME": "h"}
    variables = {**given, "TORCHELASTIC_RUN_ID": "x", "CUDA_VISIBLE_DEVICES": "4,6"}
    stand_alone(variables)
    assert variables == {"HOME": "h", "CUDA_VISIBLE_DEVICES": "6"}
    variables = {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "2",
                 "SLURM_JOB_ID": "7",
                 "CUDA_VISIBLE_DEVICES": "0"}  # fmt: skip
    stand_alone(variables)
    assert variables == {"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0"}


# ---- the command


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(TEXT)
    return path


def test_the_command_prints_table_and_verdict(trainer, file, tmp_path, capsys):
    out = tmp_path / "study"
    status, printed, _ = call(capsys, "study", file, "--out", out, "--dry-run")
    assert status == 0
    assert "6 cells: 0 finished, 0 failed, 0 running, 0 interrupted, 6 missing" in printed
    assert "time: unknown, because no cell of this study has finished" in printed
    status, printed, _ = call(capsys, "study", file, "--out", out, "--power", "0.03")
    assert status == 0
    assert "\nholds: faster (rate high against rate low: better by at least 0.01)" in printed
    assert "note: n = 3: the 95 % bootstrap interval is the range" in printed
    assert "to tell a difference of 0.03 from 0 takes 2 seeds" in printed
    assert f"page: {out}/study.html" in printed
    status, printed, _ = call(capsys, "study", file, "--out", out, "--dry-run")
    assert "nothing is left to train" in printed
    status, printed, _ = call(capsys, "study", file, "--out", out, "--json", "--power", "0.03")
    told = json.loads(printed)
    assert told["counts"] == {"finished": 6} and "takes 2 seeds" in told["power"][0]


def test_the_command_ends_with_one_if_a_cell_failed(trainer, file, tmp_path, capsys):
    trainer.fails = {(0.001, 0): UserError("no such folder")}
    status, printed, told = call(capsys, "study", file, "--out", tmp_path / "study")
    assert status == 1
    assert "failed: rate low, seed 0: no such folder" in told
    assert "note: failed: rate low, seed 0: no such folder" in printed
    assert "failed cells are tried again with --retry" in printed


def test_mistakes_are_one_line(refused, file, tmp_path):
    assert "no such file" in refused(2, "study", tmp_path / "none.yaml", "--out", tmp_path / "a")
    assert "is a file; name a folder" in refused(2, "study", file, "--out", file)
    assert "--out" in refused(2, "study", file)
    assert "no number above 0" in refused(2, "study", file, "--out", "a", "--power", "0")
    assert "--power needs the results" in refused(
        2, "study", file, "--out", tmp_path / "a", "--dry-run", "--power", "1"
    )


def test_a_study_that_trains(small_recipe, tmp_path, capsys):
    path, out = tmp_path / "s.yaml", tmp_path / "study"
    path.write_text(TEXT.replace("elpv", small_recipe).replace("[0, 1, 2]", "[5]"))
    assert spanets_cli.main(["study", str(path), "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    one, other = found["cells"]
    assert one["status"] == other["status"] == "finished"
    assert one["split"] == other["split"] is not None
    assert one["data"] == other["data"]
    assert one["environment"] == other["environment"]
    assert one["macs"] == other["macs"] > 1e5
    assert one["parameters"] > 1e5
    assert len(read_starts(out / one["folder"])) == 1
    assert "2 finished" in (out / "study.html").read_text()
    assert (out / "study.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_smoke_study(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    script = (ROOT / "studies/generated_images.py").read_text()
    monkeypatch.setattr("sys.argv", ["generated_images.py", "generated"])
    exec(script, {"__name__": "__main__"})
    assert len(os.listdir("generated")) == 2
    assert spanets_cli.main(["study", str(ROOT / "studies/smoke.yaml"), "--out", "smoke"]) == 0
    assert "6 finished" in (tmp_path / "smoke/study.html").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_studies_kept_here_can_be_run(path, tmp_path, said):
    study = parse_study(path.read_text(), str(path))
    found = plan_study(study, tmp_path / "none", said.append)
    assert found["left"] == len(study.combinations()) * len(study.seeds)
    head = path.read_text().split("\nquestion:")[0]
    for part in ("spanets study", "Hardware and time:", "Result:"):
        assert part in head
