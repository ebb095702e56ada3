"""Runs with adapters: trained, resumed, measured, predicted, exported, and written alone."""

import json
import shutil

import pytest
import timm
import torch
from safetensors.torch import save_file
from small_runs import call

from spanets.recipe import parse_recipe
from spanets.sources import open_source
from spanets_runtime.errors import UsageError

ON = {"model.weights": "w.safetensors", "model.lora.rank": 4}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A file of weights, with running statistics as after training."""
    torch.manual_seed(1)
    model = timm.create_model("test_resnet", num_classes=5)
    model.train()(torch.randn(8, 3, 32, 32))
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    save_file(model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def adapted_run(base, small_recipe, tmp_path_factory):
    pytest.importorskip("peft")
    import spanets_cli

    out = tmp_path_factory.mktemp("runs") / "lora"
    words = ["train", small_recipe, "--out", str(out), "--model.weights", str(base)]
    words += ["--model.lora.rank", "4", "--optim.lr", "0.01"]
    assert spanets_cli.main(words) == 0
    return out


def state_of(path):
    return open_source(path).network.state_dict()


def test_only_adapters_and_the_classifier_change(adapted_run, base):
    before = open_source("test_resnet", base, model_args={"num_classes": 5}).network.state_dict()
    after = state_of(adapted_run / "last.ckpt")
    changed = {name for name in before if not torch.equal(before[name], after.get(name))}
    assert {name for name in changed if "fc" in name} == {"fc.weight", "fc.bias"}
    others = {name for name in changed if "fc" not in name}
    assert others
    assert all(before[name].shape[2:] == (1, 1) for name in others)


def test_a_run_is_used_like_any_other(adapted_run, photos, tmp_path, capsys):
    path = adapted_run / "last.ckpt"
    status, printed, said = call(capsys, "eval", path, "--data", photos, "--json", "--workers", 0)
    assert status == 0, said
    assert json.loads(printed)["metrics"]["accuracy"] > 0.5
    status, printed, said = call(capsys, "predict", path, photos / "cat", "--json")
    assert status == 0, said
    assert json.loads(printed)[0]["predictions"][0]["label"] in ("cat", "dog")
    status, printed, said = call(capsys, "export", path, "--out", tmp_path / "m.pt2", "--static")
    assert status == 0, said
    results = json.loads((adapted_run / "results.json").read_text())
    plain = timm.create_model("test_resnet", num_classes=2)
    assert results["parameters"] == sum(p.numel() for p in plain.parameters())


def test_a_resumed_run_ends_alike(adapted_run, base, small_recipe, tmp_path, capsys):
    given = ["--model.weights", base, "--model.lora.rank", "4", "--optim.lr", "0.01"]
    words = ["train", small_recipe, "--out", tmp_path / "r", *given]
    status, _, said = call(capsys, *words, "--trainer.epochs", 1)
    assert status == 0, said
    assert "lora of rank 4 on " in said
    assert " parameters are trained, of which " in said
    status, _, said = call(capsys, *words, "--resume")
    assert status == 2  # the number of epochs is a key that cannot change
    assert "trainer.epochs" in said
    status, _, said = call(capsys, *words, "--trainer.epochs", 1, "--resume")
    assert status == 0, said


def test_the_adapter_alone(adapted_run, base, photos, tmp_path, capsys):
    path = tmp_path / "cells.ckpt"
    status, printed, said = call(
        capsys, "weights", "adapter", adapted_run / "best.ckpt", "--out", path
    )
    assert status == 0, said
    assert path.stat().st_size < (adapted_run / "best.ckpt").stat().st_size / 10
    assert "use it like a checkpoint" in printed
    whole = state_of(adapted_run / "best.ckpt")
    alone = open_source(path, base).network.state_dict()
    assert whole.keys() == alone.keys()
    assert all(torch.equal(whole[name], alone[name]) for name in whole)
    words = ["predict", path, photos / "cat", "--json", "--weights", base]
    status, _, said = call(capsys, *words)
    assert status == 0, said
    shutil.copy(base, tmp_path)
    assert call(capsys, *words[:-2])[0] == 0
    words[1] = adapted_run / "best.ckpt"
    assert call(capsys, *words)[0] == 2  # it has its own


def test_an_adapter_with_a_missing_or_another_base(adapted_run, base, tmp_path, capsys, refused):
    from spanets.adapters import write_adapter
    from spanets.checkpoint import read_own, save_torch

    path = tmp_path / "cells.ckpt"
    write_adapter(adapted_run / "best.ckpt", path)
    _, content = read_own(path)
    content["spanets"]["recipe"]["model"]["weights"] = "gone/away.safetensors"
    save_torch(content, path)
    said = refused(1, "predict", path, "x.png")
    assert (
        "adapts the weights in away.safetensors, which is not beside it; put it there, or" in said
    )
    other = timm.create_model("test_resnet", num_classes=5)
    save_file(other.state_dict(), tmp_path / "away.safetensors")
    said = refused(1, "predict", path, "x.png")
    assert "adapts other weights than" in said
    assert "SHA-256" in said
    shutil.copy(base, tmp_path / "away.safetensors")
    open_source(path)  # beside it is the right file
    assert "holds an adapter without the weights" in refused(
        1, "predict", "test_resnet", "x.png", "--weights", path
    )


def test_a_plain_checkpoint_has_no_adapter(small_run, tmp_path, refused):
    said = refused(1, "weights", "adapter", small_run / "last.ckpt", "--out", tmp_path / "a.ckpt")
    assert "has no adapter beside its weights; see model.lora.rank" in said


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"model.lora.rank": 8}, "adapts trained weights; add --model.pretrained true"),
        ({**ON, "model.freeze": "stem"}, "freezes the backbone already; leave out model.freeze"),
        ({"model.lora.kind": "dora"}, "model.lora.kind is dora, but there are no adapters; add"),
        ({**ON, "model.lora.kind": "ia3"}, "model.lora.rank is set, but model.lora.kind ia3 has"),
        ({**ON, "model.lora.rank": 0}, "model.lora.rank is 0, allowed: 1 to 1024"),
        ({**ON, "model.lora.kind": "lorra"}, "did you mean 'lora'?"),
        ({"model": {"lora": 8}}, "model.lora is 8, must hold keys"),
        ({"model.lora.rnk": 8}, "did you mean 'model.lora.rank'?"),
    ],
)
def test_keys_that_do_not_go_together(keys, said):
    with pytest.raises(UsageError) as raised:
        parse_recipe(keys)
    assert said in str(raised.value)


def test_nested_and_dotted_keys_are_the_same():
    nested = parse_recipe({"model": {"weights": "a", "lora": {"rank": 4, "targets": "*.fc1"}}})
    dotted = parse_recipe({"model.weights": "a"}, ["--model.lora.rank", "4"])
    assert nested.model.lora.rank == dotted.model.lora.rank == 4
    assert parse_recipe(nested.to_dict()) == nested


def test_targets_must_match_and_peft_be_there(small_recipe, base, tmp_path, refused, monkeypatch):
    words = ["train", small_recipe, "--out", tmp_path / "r", "--model.weights", base]
    words += ["--model.lora.rank", "4"]
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    assert refused(1, *words).startswith("peft is not installed; run: pip install 'spanets[peft]'")
    monkeypatch.undo()
    pytest.importorskip("peft")
    said = refused(2, *words, "--model.lora.targets", "*.fc9")
    assert "model.lora.targets: '*.fc9' matches no linear layer or 1x1 convolution" in said
