"""Runs with adapters: trained, resumed, measured, predicted, exported, and written alone."""

import json
import shutil

import pytest
import timm
import torch
from safetensors.torch import save_file
from small_runs import call

from spanets.adapters import write_adapter
from spanets.checkpoint import save_torch
from spanets.recipe import parse_recipe
from spanets.sources import open_source
from spanets.tasks import load_task
from spanets.training.adapters import add_adapters
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
    from spanets.checkpoint import read_own

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


KINDS = {
    "plain": ("test_resnet", {}),
    "a head of several layers": ("test_convnext", {}),
    "our head of several layers": ("spanetv2_nano_pure", {"model.args": {"depths": [1, 1, 1, 1]}}),
    "tensors beside the modules": ("test_vit", {"model.args": {"img_size": 64}}),
    "one channel": ("test_resnet", {"data.channels": 1, "data.mean": 0.5, "data.std": 0.2}),
    "bfloat16": ("test_convnext", {"trainer.precision": "bf16-true"}),
}


def tuned(name, keys, folder, lora="lora"):
    """Writes weights, and a checkpoint that adapts them; all that is trained has new values."""
    pytest.importorskip("peft")
    keys = {"model.name": name, "data.image_size": 64, "model.lora.kind": lora, **keys}
    keys |= {} if lora == "ia3" else {"model.lora.rank": 2}
    recipe = parse_recipe({**keys, "model.weights": str(folder / "run/w.safetensors")})
    torch.manual_seed(0)
    (folder / "run").mkdir()
    save_file(timm.create_model(name, **recipe.model.args).state_dict(), recipe.model.weights)
    task = load_task(recipe.task)(recipe)
    info = task.make_info(["cat", "dog"])
    model = task.build_model(info)
    task.load_weights(model, recipe.model.weights)
    add_adapters(model, recipe.model.lora)
    if recipe.trainer.precision == "bf16-true":
        model.bfloat16()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    path = folder / "run/last.ckpt"
    save_torch({"state_dict": state, "spanets": info.to_dict()}, path)
    return path


@pytest.mark.parametrize("lora", ["lora", "ia3"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_adapter_opens_as_its_checkpoint(kind, lora, tmp_path):
    """The file holds everything that was trained, and the base is rebuilt as training made it."""
    checkpoint = tuned(*KINDS[kind], tmp_path, lora)
    write_adapter(checkpoint, tmp_path / "a.ckpt")
    shutil.copy(tmp_path / "run/w.safetensors", tmp_path)
    whole, alone = state_of(checkpoint), state_of(tmp_path / "a.ckpt")
    assert whole.keys() == alone.keys()
    assert all(torch.equal(whole[name], alone[name]) for name in whole)


def test_an_adapter_of_an_earlier_version_opens(tmp_path):
    checkpoint = tuned("test_resnet", {}, tmp_path)
    write_adapter(checkpoint, tmp_path / "run/a.ckpt")
    content = torch.load(tmp_path / "run/a.ckpt", weights_only=True)
    assert content["adapter_base"].pop("dtype") == "float32"
    assert not any(key in name for name in content["state_dict"] for key in ("conv1.w", "bn1"))
    save_torch(content, tmp_path / "run/a.ckpt")
    assert state_of(tmp_path / "run/a.ckpt").keys() == state_of(checkpoint).keys()


def test_an_adapter_that_nothing_could_open_is_not_written(tmp_path, refused):
    checkpoint = tuned("test_resnet", {}, tmp_path)
    other = timm.create_model("test_resnet").state_dict()
    save_file(other, tmp_path / "run/w.safetensors")
    said = refused(1, "weights", "adapter", checkpoint, "--out", tmp_path / "a.ckpt")
    assert "last.ckpt: no adapter was written: its weights are not those of " in said
    assert not (tmp_path / "a.ckpt").exists()
    (tmp_path / "run/w.safetensors").unlink()  # on another machine nothing can be checked
    write_adapter(checkpoint, tmp_path / "a.ckpt")


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
