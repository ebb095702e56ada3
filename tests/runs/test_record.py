"""What is recorded of a run: enough to know it again, and no secrets."""

import json
import os
import shlex
import subprocess

import pytest
from small_runs import call

from spanets.runs.claiming import is_running
from spanets.runs.record import describe_start, read_starts, recorded
from spanets.training.errors import StoppedError
from spanets_runtime.errors import UserError


def test_a_run_is_recorded(small_run):
    [start] = read_starts(small_run)
    assert start["outcome"] == "finished"
    assert start["started"] <= start["ended"]
    assert {"python", "torch", "timm", "lightning"} <= set(start["versions"])
    assert start["machine"]["cores"] >= 1
    assert not is_running(small_run)


def test_every_start_is_kept(tmp_path):
    with pytest.raises(KeyboardInterrupt), recorded(tmp_path):
        assert read_starts(tmp_path)[0]["outcome"] is None
        raise KeyboardInterrupt
    with pytest.raises(UserError), recorded(tmp_path):
        raise UserError("the loss is nan")
    with pytest.raises(StoppedError), recorded(tmp_path):
        raise StoppedError("stopped by SIGTERM")
    with pytest.raises(ZeroDivisionError), recorded(tmp_path):
        raise ZeroDivisionError("of ours")
    with recorded(tmp_path):
        pass
    outcomes = [start["outcome"] for start in read_starts(tmp_path)]
    failed = ["failed: the loss is nan", "stopped", "failed: ZeroDivisionError"]
    assert outcomes == ["stopped", *failed, "finished"]


def test_ctrl_c_told_plainly_is_still_a_stop(tmp_path):
    def stop():
        try:
            raise SystemExit
        except SystemExit:
            raise UserError("stopped; go on with …") from None

    with pytest.raises(UserError), recorded(tmp_path):
        stop()
    assert read_starts(tmp_path)[0]["outcome"] == "stopped"


def test_a_refused_run_leaves_the_record_alone(small_run, small_recipe, capsys):
    before = (small_run / "environment.json").read_text()
    assert call(capsys, "train", small_recipe, "--out", small_run)[0] == 2
    assert (small_run / "environment.json").read_text() == before


def test_secrets_stay_out(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", "s3cret-of-the-environment")
    words = ["/usr/bin/spanets", "train", "elpv", "--data.root", "s3://me:s3cret@host/bucket"]
    words += ["--api-key", "s3cret", "--token=s3cret", "--trainer.epochs", "3"]
    described = describe_start(words)
    shown = shlex.split(described["command"])
    assert shown == [
        *("spanets", "train", "elpv", "--data.root", "s3://…@host/bucket"),
        *("--api-key", "…", "--token=…", "--trainer.epochs", "3"),
    ]
    assert "s3cret" not in json.dumps(described)


def test_the_state_of_git(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert describe_start(["spanets"])["git"] is None
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q", "-b", "trunk"], ["commit", "-q", "--allow-empty", "-m", "One"]):
        subprocess.run(["git", *identity, *words], check=True)
    (tmp_path / os.fsdecode(b"n\xe4me.py")).touch()  # in Latin-1
    subprocess.run(["git", "config", "core.quotepath", "false"], check=True)
    state = describe_start(["spanets"])["git"]
    assert len(state["commit"]) == 40
    assert (state["branch"], state["changed_files"]) == ("trunk", 1)
    monkeypatch.setenv("PATH", "")  # git is not installed
    assert describe_start(["spanets"])["git"] is None
