"""`embed` and its files: labels, layers, order, storing, and the command."""

import csv
import json
import shutil

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from small_runs import make_photos
from torch import nn

import spanets_cli
from spanets.data.sources.labelled import gather_labelled
from spanets.embedding import embed, load_embeddings, save_embeddings
from spanets.embedding.network import open_network
from spanets.embedding.report import open_like
from spanets_runtime.errors import UsageError, UserError

MODEL = "test_resnet"
SIZE = 64


def own_network() -> nn.Module:
    """A network without timm's methods."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 12, 8, 8), nn.ReLU(), nn.Flatten(), nn.Linear(768, 4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes, one class of one image, an unreadable and a loose image."""
    root = make_photos(tmp_path_factory.mktemp("embed") / "photos", cat=6, dog=6, owl=1)
    (root / "dog/deep").mkdir()
    (root / "dog/5.png").rename(root / "dog/deep/5.png")
    Image.new("RGB", (50, 40), "red").save(root / "loose.png")
    (root / "cat/broken.png").write_bytes(b"nothing")
    (root / "cat/notes.txt").write_text("no image")
    return root


@pytest.fixture(scope="module")
def found(folder):
    return embed(MODEL, folder, size=SIZE)


def run(capsys, *words):
    # Without internet; published weights have their own tests.
    status = spanets_cli.main(["embed", *map(str, words), "--no-pretrained"])
    out, err = capsys.readouterr()
    return status, out, err


def test_labels_are_class_folders(found, folder):
    assert found.classes == ["cat", "dog", "owl"]
    assert len(found) == 14
    for path, label in zip(found.paths, found.labels, strict=True):
        name = path.removeprefix(f"{folder}/").split("/")[0]
        assert found.classes.index(name) == label if label >= 0 else name == "loose.png"
    assert len(found.left_out) == 1
    assert "cat/broken.png" in found.left_out[0]
    notes = " ".join(found.notes)
    for words in ("1 image in no class folder", "1 .txt", "weights are random"):
        assert words in notes


def test_parts(tmp_path):
    for part, count in (("train", 2), ("validation", 1)):
        make_photos(tmp_path / "set" / part, cat=count, dog=count)
    make_photos(tmp_path / "set/other", cat=1)
    Image.new("RGB", (8, 8)).save(tmp_path / "set/loose.png")
    listed = gather_labelled([tmp_path / "set"])
    assert [p for p in listed.parts if p] == ["train"] * 4 + ["val"] * 2
    assert listed.classes == ["cat", "cat", "dog", "dog", "cat", "dog", "", ""]
    assert "2 images beside the parts" in " ".join(listed.notes)


def test_files_and_empty_folders(folder, tmp_path):
    one = embed(MODEL, folder / "loose.png", size=SIZE)
    assert (len(one), one.classes, one.labels.tolist()) == (1, [], [-1])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="without images"):
        embed(MODEL, tmp_path / "empty")
    with pytest.raises(UserError, match=r"no image could be embedded: .*broken"):
        embed(MODEL, folder / "cat/broken.png")


def test_vectors_are_pooled_features(found):
    network = open_network(MODEL, size=SIZE)
    model = network.network
    assert found.origin.layer == "pre_logits"
    assert found.dimensions == model.num_features
    path = found.paths[0]
    image = torch.from_numpy(network.preprocess(Image.open(path)))[None]
    with torch.no_grad():
        expected = model.forward_features(image).mean((2, 3))[0]
    np.testing.assert_allclose(found.vectors[0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 5, "workers": 2}])
def test_batches_make_no_difference(found, folder, options):
    other = embed(MODEL, folder, size=SIZE, **options)
    assert other.paths == found.paths
    assert (other.digests == found.digests).all()
    np.testing.assert_allclose(other.vectors, found.vectors, rtol=1e-4, atol=1e-6)


def test_order_makes_no_difference(found):
    order = np.random.default_rng(0).permutation(len(found))
    other = embed(MODEL, [found.paths[i] for i in order], size=SIZE)
    np.testing.assert_allclose(other.vectors, found.vectors[order], rtol=1e-4, atol=1e-6)


def test_normalized(found, folder):
    other = embed(MODEL, folder, size=SIZE, normalize=True)
    np.testing.assert_allclose(np.linalg.norm(other.vectors, axis=1), 1, rtol=1e-6)
    cosines = (other.vectors * found.vectors).sum(1) / np.linalg.norm(found.vectors, axis=1)
    np.testing.assert_allclose(cosines, 1, rtol=1e-5)


def test_layers(folder):
    image = folder / "loose.png"
    model = timm.create_model(MODEL)
    stage = embed(MODEL, image, "layer2", SIZE)
    assert stage.dimensions == model.feature_info[2]["num_chs"]
    tokens = embed("test_vit", image, "blocks.0", 160)
    assert tokens.dimensions == timm.create_model("test_vit").num_features
    logits = embed(MODEL, image, "fc", SIZE)
    assert logits.dimensions == 1000
    with pytest.raises(UsageError, match="no module matches 'layr2'"):
        embed(MODEL, image, "layr2", SIZE)
    with pytest.raises(UsageError, match="matches 2 modules"):
        embed(MODEL, image, "layer1.0.conv*", SIZE)


def test_own_networks_name_a_layer(folder):
    word = f"{__name__}:own_network"
    image = folder / "loose.png"
    with pytest.raises(UsageError, match="name a module with --layer, such as 2"):
        embed(word, image, size=SIZE)
    found = embed(word, image, "1", SIZE)
    assert found.dimensions == 12
    network = open_network(word, "0", SIZE)
    pixels = torch.from_numpy(network.preprocess(Image.open(image)))[None]
    expected = own_network()[:2](pixels).mean((2, 3))[0].detach()
    np.testing.assert_allclose(found.vectors[0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_round_trip(found, tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"found{suffix}"
    save_embeddings(found, path)
    save_embeddings(found, path)
    other = load_embeddings(path)
    for name in ("paths", "classes", "parts", "origin"):
        assert getattr(other, name) == getattr(found, name)
    for name in ("vectors", "labels", "digests"):
        assert (getattr(other, name) == getattr(found, name)).all()
        assert getattr(other, name).dtype == getattr(found, name).dtype
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_files_for_other_programs(found, tmp_path):
    save_embeddings(found, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        assert stored["paths"].tolist() == found.paths
        assert stored["vectors"].shape == found.vectors.shape
        assert str(stored["layer"]) == "pre_logits"
        assert json.loads(str(stored["preprocessing"]))["input_size"] == [3, SIZE, SIZE]
    parquet = pytest.importorskip("pyarrow.parquet")
    save_embeddings(found, tmp_path / "a.parquet")
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table["label"].to_pylist()[-1] is None
    assert np.array(table["vector"].to_pylist(), np.float32).tolist() == found.vectors.tolist()


def damage(name, content):
    def make(found, path):
        with np.load(path) as stored:
            arrays = {**stored, name: content}
        np.savez(path, **{key: value for key, value in arrays.items() if value is not None})

    return make


def mark_as_encrypted(found, path):
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


DAMAGES = {
    "encrypted": mark_as_encrypted,
    "text": lambda found, path: path.write_text("no"),
    "cut": lambda found, path: path.write_bytes(path.read_bytes()[:-500]),
    "compressed": lambda found, path: np.savez_compressed(path, **np.load(path)),
    "lacking": damage("layer", None),
    "objects": damage("paths", np.array([{}] * 14, dtype=object)),
    "short": damage("labels", np.zeros(3, np.int32)),
    "label": damage("labels", np.full(14, 9, np.int32)),
    "part": damage("parts", np.full(14, "tset")),
    "double": damage("vectors", np.zeros((14, 2))),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files_are_refused(found, tmp_path, name):
    path = tmp_path / "found.npz"
    save_embeddings(found, path)
    DAMAGES[name](found, path)
    with pytest.raises(UserError, match="damaged, or not a file of") as refused:
        load_embeddings(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"no", b"PAR1" + bytes(50) + b"PAR1"])
def test_damaged_parquet_is_refused(tmp_path, content):
    pytest.importorskip("pyarrow")
    path = tmp_path / "found.parquet"
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged, or not a file of"):
        load_embeddings(path)


def test_another_model_is_refused(found, folder):
    assert open_like(found).digest == found.origin.weights
    with pytest.raises(UserError, match="weights"):
        open_like(found, "test_efficientnet")
    with pytest.raises(UserError, match="preprocessing"):
        open_like(found, open_network(MODEL, size=2 * SIZE))
    with pytest.raises(UserError, match="layer"):
        open_like(found, open_network(MODEL, "layer2", SIZE))


@pytest.mark.slow
def test_exported_files(folder, tmp_path, small_run):
    pytest.importorskip("onnxruntime")
    classes, maps = tmp_path / "classes.onnx", tmp_path / "maps.onnx"
    checkpoint, size = str(small_run / "last.ckpt"), ["--size", "32", "--static"]
    assert spanets_cli.main(["export", checkpoint, "--out", str(classes), *size]) == 0
    with pytest.raises(UsageError, match="outputs classes, not features; give the checkpoint"):
        embed(classes, folder)
    words = ["export", checkpoint, "--features-only", "--out", str(maps), *size]
    assert spanets_cli.main(words) == 0
    found = embed(maps, folder)
    expected = embed(checkpoint, folder)
    assert (found.origin.layer, expected.origin.layer) == ("last_map", "pre_logits")
    np.testing.assert_allclose(found.vectors, expected.vectors, rtol=1e-3, atol=1e-5)


def test_a_checkpoint_keeps_its_split(small_run, photos):
    found = embed(small_run / "last.ckpt", photos)
    with (small_run / "split.csv").open() as file:
        parts = {row["image"]: row["part"] for row in csv.DictReader(file)}
    assert found.parts == [parts[path.removeprefix(f"{photos}/")] for path in found.paths]
    assert "parts of 16 images" in " ".join(found.notes)
    other = embed(small_run / "last.ckpt", [photos / "cat"])
    assert not any(other.parts)


# ---- the command


def test_command(folder, tmp_path, capsys):
    out = tmp_path / "found.npz"
    shutil.copytree(folder, tmp_path / "photos")
    root = tmp_path / "photos"
    Image.open(root / "owl/0.png").save(root / "dog/copy.jpg", quality=95, subsampling=0)
    shutil.copy(root / "dog/1.png", root / "dog/same.png")
    status, text, errors = run(
        capsys, MODEL, "--out", out, root, "--size", SIZE, "--knn", "3", "--probe",
        *("--duplicates", "0.999", "--query", root / "dog/1.png", "--nearest", 2, "--json"),
    )  # fmt: skip
    found = json.loads(text)
    assert status == 1
    assert "1 of 17 images left out" in errors
    assert (found["images"], found["layer"]) == (16, "pre_logits")
    assert found["knn"]["k"] == 3
    assert found["probe"]["held_out"].startswith("drawn by content")
    pairs = {
        frozenset(pair[key].removeprefix(f"{root}/") for key in ("first", "second")): pair["kind"]
        for pair in found["duplicates"]["pairs"]
    }
    assert pairs[frozenset({"dog/1.png", "dog/same.png"})] == "exact"
    assert pairs[frozenset({"owl/0.png", "dog/copy.jpg"})] == "near"
    (query,) = found["nearest"]["queries"]
    assert query["nearest"][0]["image"] == str(root / "dog/same.png")
    assert len(query["nearest"]) == 2
    for name in ("found-duplicates.csv", "found-duplicates.png", "found-nearest.png"):
        assert (tmp_path / name).is_file()

    words = ["--knn", "3", "--probe", "--duplicates", "0.999", "--json"]
    status, text, _ = run(capsys, "--from", out, *words)
    again = json.loads(text)
    assert status == 0
    assert [again[key] for key in ("knn", "probe")] == [found[key] for key in ("knn", "probe")]
    assert again["duplicates"]["pairs"] == found["duplicates"]["pairs"]
    status, text, errors = run(capsys, "--from", out, "--knn", "--duplicates")
    assert status == 0
    assert "accuracy" in text and "copies: 1 pair with the same content" in text


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["MODEL", "PHOTOS"], 2, "nothing to do: add --out FILE"),
        (["MODEL", "PHOTOS", "--out", "a.csv"], 2, "the suffix must be .npz or .parquet"),
        (["MODEL", "PHOTOS", "--duplicates"], 2, "add --out"),
        (["MODEL", "PHOTOS/cat", "--knn"], 1, "there is no class folders"),
        (["MODEL", "--out", "a.npz"], 2, "the following arguments are required: IMAGE"),
        (["resnet_50x", "PHOTOS", "--knn"], 2, "resnet_50x"),
        (["--from", "none.npz", "--knn"], 1, "none.npz: no such file"),
        (["--from", "a.txt", "--knn"], 2, "the suffix must be"),
        (["MODEL", "PHOTOS", "--from", "a.npz", "--knn"], 2, "leave out PHOTOS"),
        (["--from", "a.npz", "--knn", "--layer", "x"], 2, "--layer goes with MODEL"),
        (["--knn", "MODEL", "PHOTOS"], 2, "is no whole number"),
    ],
)
def test_wrong_words(folder, tmp_path, monkeypatch, capsys, words, status, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "PHOTOS").symlink_to(folder)
    words = [MODEL if word == "MODEL" else word for word in words]
    found, text, errors = run(capsys, *words)
    assert (found, text) == (status, "")
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_inputs_are_not_overwritten(folder, tmp_path, capsys):
    query = tmp_path / "a-nearest.png"
    shutil.copy(folder / "loose.png", query)
    before = query.read_bytes()
    words = [MODEL, folder, "--out", tmp_path / "a.npz", "--query", query]
    status, _, errors = run(capsys, *words)
    assert status == 1
    assert "would be overwritten" in errors
    assert query.read_bytes() == before
    assert not (tmp_path / "a.npz").exists()
