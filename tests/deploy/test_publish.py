"""`spanets push`: what is written, that timm loads it, and what is said of the rest."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence

import pytest
import timm
import torch
import yaml
from hub import TOKEN, local_hub
from opened import restore_model
from PIL import Image
from small_runs import call
from torchvision.transforms.functional import to_pil_image

from spanets.checkpoint import ModelInfo, save_torch
from spanets.deploy.publish import FILES
from spanets.tasks import load_task
from spanets_runtime.preprocessing import Preprocessing


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Returns a function that writes a checkpoint of a model of random weights."""

    def make(
        name: str, arguments: dict, size: int = 64, classes: Sequence[str] = ("cat", "dog", "cow")
    ) -> str:
        torch.manual_seed(0)
        preprocessing = {
            "input_size": [3, size, size],
            "crop_pct": 0.8,
            "interpolation": "bilinear",
            "mean": [0.4, 0.5, 0.6],
            "std": [0.2, 0.3, 0.4],
        }
        recipe = {"task": "classification", "data": {"root": "/secret/place", "source": "folder"}}
        recipe["data"]["cache"] = "/secret/cache"
        recipe["trainer"] = {"logger_args": {"tracking_uri": "https://me:secret@tracker"}}
        info = ModelInfo(name, arguments, list(classes), preprocessing, recipe, "0.1")
        model = load_task(info.task).build_model(info)
        weights = {f"model.{key}": value for key, value in model.state_dict().items()}
        path = tmp_path_factory.mktemp("made") / "last.ckpt"
        save_torch({"state_dict": weights, "spanets": info.to_dict()}, path)
        return str(path)

    return make


SHALLOW = {"depths": [1, 1, 1, 1]}
MODELS = [
    ("spanet_nano", {**SHALLOW, "radii": [1, 2, 1, 1]}),
    ("spanetv2_nano_hybrid", {**SHALLOW, "img_size": 64}),
    ("test_resnet", {}),
]


@pytest.mark.parametrize(("name", "arguments"), MODELS, ids=lambda value: str(value)[:12])
def test_timm_loads_a_folder(made, tmp_path, capsys, name, arguments):
    """The logits are the checkpoint's, and so are classes and preprocessing."""
    checkpoint, out = made(name, arguments), tmp_path / "pushed"
    status, printed, _ = call(capsys, "push", checkpoint, "--to", out)
    assert status == 0
    assert printed.splitlines() == [str(out / file) for file in FILES]
    assert sorted(os.listdir(out)) == sorted(FILES)

    ours, info = restore_model(checkpoint)
    theirs = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))
    config = timm.data.resolve_model_data_config(theirs)
    assert theirs.pretrained_cfg["label_names"] == info.classes
    picture = to_pil_image(torch.rand(3, 90, 70))
    wanted = Preprocessing.parse(info.preprocessing, "")(picture)
    found = timm.data.create_transform(**config)(picture)
    torch.testing.assert_close(found, torch.from_numpy(wanted), rtol=0, atol=1e-6)  # rounding
    assert theirs.num_classes == 3


@pytest.fixture(scope="module")
def finished(small_run, tmp_path_factory):
    """A copy of the small run, to be changed."""
    return shutil.copytree(small_run, tmp_path_factory.mktemp("finished") / "run")


def read_info(folder) -> tuple[dict, str]:
    text = (folder / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_the_model_card(finished, tmp_path, capsys, photos):
    words = ["push", finished / "last.ckpt", "--to", tmp_path / "pets"]
    assert call(capsys, *words, "--licence", "cc-by-4.0")[0] == 0
    head, body = read_info(tmp_path / "pets")
    assert (head["license"], head["library_name"]) == ("cc-by-4.0", "timm")
    assert head["pipeline_tag"] == "image-classification"
    results = json.loads((finished / "results.json").read_text())
    told = {m["type"]: m["value"] for m in head["model-index"][0]["results"][0]["metrics"]}
    assert told == {name: round(value, 4) for name, value in results["metrics"].items()}
    assert f"| accuracy | {results['metrics']['accuracy']:.4f} |" in body
    assert "On 4 images (val):" in body
    assert "2: `cat`, `dog`." in body
    assert 'timm.create_model("local-dir:FOLDER", pretrained=True)' in body
    recipe = yaml.safe_load(re.search(r"```yaml\n(.*?)```", body, flags=re.DOTALL)[1])
    assert recipe["optim"]["batch_size"] == 4
    everything = "".join(
        (tmp_path / "pets" / name).read_text() for name in ("README.md", "config.json")
    )
    assert str(photos) not in everything  # where the images were is no one's business
    assert str(finished) not in everything


def test_its_snippet_runs(finished, tmp_path, capsys):
    assert call(capsys, "push", finished / "last.ckpt", "--to", tmp_path / "pets")[0] == 0
    _, body = read_info(tmp_path / "pets")
    snippet = re.search(r"```python\n(.*?)```", body, flags=re.DOTALL)[1]
    picture = Image.new("RGB", (40, 40))
    exec(snippet.replace("FOLDER", str(tmp_path / "pets")), {"picture": picture})
    assert capsys.readouterr().out.strip() in ("cat", "dog")


def test_classes_of_bytes_that_are_no_text(made, tmp_path, capsys):
    checkpoint = made("test_resnet", {}, classes=["caf\udce9", "$_$", "\u732b", "a\nb"])
    assert call(capsys, "push", checkpoint, "--to", tmp_path / "pets")[0] == 0
    assert r"4: `caf\udce9`, `$_$`, `\u732b`, `a\nb`.".replace(r"\u732b", "\u732b") in (
        tmp_path / "pets/README.md"
    ).read_text("utf-8")
    model = timm.create_model(f"local-dir:{tmp_path / 'pets'}", pretrained=True)
    assert model.pretrained_cfg["label_names"] == ["caf\udce9", "$_$", "\u732b", "a\nb"]


@pytest.mark.parametrize("text", [None, "{", "[]", '{"checkpoint": "best.ckpt"}', '{"metrics": 1}'])
def test_metrics_of_other_weights_are_left_out(finished, tmp_path, capsys, text):
    """There are none, they are damaged, or they are those of another checkpoint."""
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "results.json").unlink()
    if text is not None:
        (run / "results.json").write_text(text)
    assert call(capsys, "push", run / "last.ckpt", "--to", tmp_path / "pets")[0] == 0
    head, body = read_info(tmp_path / "pets")
    assert "model-index" not in head
    assert "license" not in head
    assert "No metrics of these weights were recorded." in body
    assert "None was given for these weights." in body


def test_a_folder_is_written_again_but_not_one_with_other_files(finished, tmp_path, refused):
    words = ["push", finished / "last.ckpt", "--to", tmp_path / "pets"]
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets/config.json").write_text("{}")
    (tmp_path / "pets/thesis.tex").write_text("of years of work")
    line = refused(2, *words)
    assert line == (
        f"--to {tmp_path / 'pets'}: holds 'thesis.tex'; name a new folder, or one of a push"
    )
    (tmp_path / "pets/thesis.tex").unlink()
    line = refused(2, *words)
    assert line.startswith(f"--to {tmp_path / 'pets'}: config.json was not written by a push")
    (tmp_path / "pets/config.json").rename(tmp_path / "pets/thesis.tex")
    line = refused(2, *words[:-1], tmp_path / "pets/thesis.tex")
    assert line.endswith("thesis.tex: is a file; name a folder, or hf-hub:OWNER/NAME")


def test_mistakes(finished, tmp_path, refused):
    words = ["push", finished / "last.ckpt", "--to"]
    for name in ("me", "me/", "me/a/b", "me/a b", "../me/x"):
        line = refused(2, *words, f"hf-hub:{name}")
        assert line.startswith(f"--to is hf-hub:{name}, must be hf-hub:OWNER/NAME (")
    line = refused(2, *words, tmp_path / "a", "--licence", "MIT License")
    assert line == "--licence is 'MIT License', must be a name of the hub's, such as mit"
    line = refused(2, *words, tmp_path / "a", "--message", "hello")
    assert line == ("--message goes with a repository on the hub, --to hf-hub:OWNER/NAME")
    line = refused(1, "push", tmp_path / "none.ckpt", "--to", tmp_path / "a")
    assert line.endswith("none.ckpt: no such file")
    assert not (tmp_path / "a").exists()


def test_other_tasks_have_no_place_in_timms_format(finished, tmp_path, refused):
    content = torch.load(finished / "last.ckpt", weights_only=True)
    content["spanets"] |= {"task": "detection", "preprocessing": {}}
    torch.save(content, tmp_path / "a.ckpt")
    line = refused(1, "push", tmp_path / "a.ckpt", "--to", tmp_path / "a")
    assert line == f"{tmp_path / 'a.ckpt'}: is for detection; timm's format holds only classifiers"


# ---- the hub

# In a process of its own: the hub's address is read when huggingface_hub is imported.
SCRIPT = """
import sys
import spanets_cli
checkpoint, logits = sys.argv[1:]
words = ["push", checkpoint, "--to", "hf-hub:me/cells", "--licence", "mit", "--message", "First"]
assert spanets_cli.main(words) == 0
import timm, torch, spanets
model = timm.create_model("hf-hub:me/cells", pretrained=True).eval()
with torch.no_grad():
    torch.save(model(torch.linspace(-1, 1, 2 * 3 * 64 * 64).view(2, 3, 64, 64)), logits)
"""


def environment(folder, address: str, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return {
        **kept,
        "HF_ENDPOINT": address,
        "HF_HOME": str(folder),
        "HF_HUB_DISABLE_XET": "1",
    } | more


def test_the_hub_and_back(made, tmp_path):
    checkpoint = made("spanet_nano", {**SHALLOW, "radii": [1, 2, 1, 1]})
    with local_hub() as hub:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, checkpoint, str(tmp_path / "logits.pt")],
            env=environment(tmp_path / "home", hub.address, HF_TOKEN=TOKEN),
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.address}/me/cells/commit/{'0' * 40}"
    assert sorted(hub.files) == sorted(FILES)  # and nothing else
    assert hub.messages == ["First"]
    assert (
        'timm.create_model("hf-hub:me/cells", pretrained=True)' in hub.files["README.md"].decode()
    )
    assert TOKEN not in hub.files["README.md"].decode() + done.stdout + done.stderr
    ours, _ = restore_model(checkpoint)
    with torch.no_grad():
        expected = ours(torch.linspace(-1, 1, 2 * 3 * 64 * 64).view(2, 3, 64, 64))
    assert torch.equal(torch.load(tmp_path / "logits.pt"), expected)


@pytest.mark.slow
@pytest.mark.parametrize("there", [True, False])
def test_a_hub_that_refuses_or_is_not_there(made, tmp_path, there):
    words = [sys.executable, "-m", "spanets_cli", "push", made("test_resnet", {})]
    with local_hub() as hub:
        address = hub.address if there else "http://127.0.0.1:9"
        done = subprocess.run(
            [*words, "--to", "hf-hub:me/cells"],
            env=environment(tmp_path, address, HF_TOKEN="hf_of_someone_else"),
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    if there:
        told = "me/cells: the hub refused (401): no token that may write there; set HF_TOKEN"
    else:
        told = "me/cells: the hub cannot be reached ("
    assert told in done.stderr
    assert not hub.files
