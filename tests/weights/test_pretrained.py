"""`pretrained=True`: released files by name, from a server or a folder, adapted as timm does it."""

import re
from pathlib import Path

import golden
import pytest
import releases
import timm
import torch
from networks import structures
from torch import nn

import spanets
from spanets.backbones.factory import create_pretrained
from spanets.weights import PUBLISHED, NotPublishedError, WeightsError, mirrors, transport
from spanets.weights.loading import adapt_state_dict
from spanets.weights.pretrained import wanted
from spanets.weights.published import TAG, Release, nearest_published, release_of
from spanets_runtime.errors import UsageError, UserError

NAME, V2 = "spanet_small", "spanetv2_s18_pure"


@pytest.fixture(scope="session")
def mirror(tmp_path_factory) -> Path:
    """A folder with a released file of each family, made from golden data."""
    root = tmp_path_factory.mktemp("mirror")
    for name, above in ((NAME, root), (V2, root / "DoranLyong")):
        path = above / release_of(name).path
        path.parent.mkdir(parents=True)
        torch.save({"state_dict": golden.released_state(name)}, path)
    return root


@pytest.fixture(scope="session")
def torch_home(tmp_path_factory) -> Path:
    """One cache for all tests that only read it."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def cached(mirror, torch_home, monkeypatch) -> Path:
    monkeypatch.setenv("SPANETS_RELEASES", str(mirror))
    monkeypatch.setenv("TORCH_HOME", str(torch_home))
    return torch_home / "hub/checkpoints"


def test_table_is_that_of_timm():
    names = {release.name for release in PUBLISHED}
    assert set(timm.list_pretrained("*spanet*")) == names
    assert spanets.list_models(pretrained=True) == [release.name for release in PUBLISHED]
    assert spanets.list_models("*small*", pretrained=True) == [f"{NAME}.{TAG}"]
    for name in spanets.list_models():
        assert timm.is_model_pretrained(name) == (release_of(name) is not None)
        assert nearest_published(name).split("_")[0] == name.split("_")[0]


@pytest.mark.parametrize("release", PUBLISHED, ids=lambda release: release.model)
def test_configuration(release: Release):
    config = timm.get_pretrained_cfg(release.name)
    assert config == timm.get_pretrained_cfg(release.model)
    assert config.url == f"https://github.com/DoranLyong/{release.path}"
    assert (config.tag, config.license, config.num_classes) == (TAG, release.licence, 1000)
    assert config.paper_ids.startswith("arXiv:")
    assert config.origin_url in config.url
    # torch hub would take these digits for a hash.
    assert not re.search(r"-[a-f0-9]{8,}\.pth$", config.url)


@pytest.mark.parametrize("name", [NAME, pytest.param(V2, marks=pytest.mark.slow)])
def test_logits_of_a_fetched_file(name, cached):
    reference, metadata = golden.read(f"{name}_224x224")
    model = timm.create_model(f"{name}.{TAG}", pretrained=True).eval()
    with torch.no_grad():
        logits = model(golden.images(metadata))
    assert golden.relative_error(logits, reference["logits"]) < golden.TOLERANCE
    assert "state_dict" not in model.pretrained_cfg
    assert model.default_cfg is model.pretrained_cfg
    other = timm.create_model(name, pretrained=True, num_classes=10)
    ours, theirs = model.state_dict(), other.state_dict()
    changed = {key for key in ours if not torch.equal(ours[key], theirs[key])}
    classifier = model.pretrained_cfg["classifier"]
    assert changed == {f"{classifier}.weight", f"{classifier}.bias"}


@pytest.mark.slow
def test_filters_are_resized_for_img_size(cached):
    """A model for 96² is, at this size, that for 224²."""
    plain, other = (
        timm.create_model(V2, pretrained=True, **more).eval() for more in ({}, {"img_size": 96})
    )
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(other(x), plain(x))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"depths": (1, 1, 1, 1), "num_classes": 10}, "unexpected key"),
        ({"depths": (4, 4, 12, 5), "num_classes": 10}, "missing key"),
        ({"ring": "none"}, "another variant"),
    ],
)
def test_nothing_is_dropped_in_silence(cached, arguments, reason):
    with pytest.raises(WeightsError, match=f"do not fit the model's arguments: .*{reason}"):
        timm.create_model(NAME, pretrained=True, **arguments)


def test_meta_device(cached):
    with pytest.raises(ValueError, match="meta device"):
        timm.create_model(NAME, pretrained=True, device="meta")


def test_cache_dir_and_one_request(mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(transport, "PAUSES", ())
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    release = release_of(NAME)
    with releases.serving() as server:
        monkeypatch.setenv("SPANETS_RELEASES", f"{server.address}/base/")
        long = f"/base/DoranLyong/{release.path}"
        server.files[long] = (mirror / release.path).read_bytes()
        for _ in range(2):
            timm.create_model(NAME, pretrained=True, cache_dir=tmp_path)
        assert server.asked == [(f"/base/{release.path}", None), (long, None)]
    assert (tmp_path / release.file).is_file()
    # The record names the place of publication, so that any mirror's copy serves.
    monkeypatch.delenv("SPANETS_RELEASES")
    timm.create_model(NAME, pretrained=True, cache_dir=tmp_path)


@pytest.mark.parametrize(
    "base",
    ["ftp://host/x", "/no/such/folder", "file:///tmp", "http://[bad", "https://[::1/x", "http://"],
)
def test_wrong_base(base, monkeypatch):
    monkeypatch.setenv("SPANETS_RELEASES", base)
    with pytest.raises(UserError, match=r"SPANETS_RELEASES is .*must be an address"):
        mirrors.locations(PUBLISHED[0])


def test_base_is_for_published_files_alone(monkeypatch, mirror):
    monkeypatch.setenv("SPANETS_RELEASES", str(mirror))
    assert wanted("http://host/a.pth").locations == ["http://host/a.pth"]


@pytest.mark.parametrize("url", ["http://me:secret@[bad/a.pth?key=secret", "https://[::1/a.pth"])
def test_an_address_that_cannot_be_read_is_told_in_a_line(url, tmp_path):
    with pytest.raises(UserError, match="is no address") as caught:
        wanted(url).name  # noqa: B018
    assert "secret" not in str(caught.value)
    with pytest.raises(UserError) as caught:
        transport.copy_file(url, tmp_path / "part", None)
    assert "secret" not in str(caught.value)


TINY = {"dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1)}


@pytest.fixture
def own_file(build, monkeypatch):
    """A model, and an address of its weights."""
    monkeypatch.setattr(transport, "PAUSES", ())
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    model = build("spanet_nano")
    with releases.serving() as server:
        yield model, server


def test_address_of_the_user(own_file, tmp_path):
    model, server = own_file
    torch.save(model.state_dict(), tmp_path / "x")
    server.files["/nano.pth"] = (tmp_path / "x").read_bytes()
    overlay = {"url": f"{server.address}/nano.pth"}
    for given in (
        {"pretrained_cfg_overlay": overlay},
        {"pretrained_cfg": overlay | {"num_classes": 1000}},
    ):
        loaded = timm.create_model("spanet_nano", pretrained=True, cache_dir=tmp_path, **given)
        assert all(map(torch.equal, loaded.state_dict().values(), model.state_dict().values()))
    assert len(server.asked) == 1


def test_adapted_as_timm_does(own_file, tmp_path):
    plain, server = own_file
    plain.eval()
    torch.save(plain.state_dict(), tmp_path / "x")
    server.files["/nano.pth"] = (tmp_path / "x").read_bytes()

    def create(**arguments) -> nn.Module:
        overlay = {"url": f"{server.address}/nano.pth", "first_conv": "stem.conv"}
        return timm.create_model(
            *("spanet_nano", True), pretrained_cfg_overlay=overlay, cache_dir=tmp_path, **arguments
        ).eval()

    gray = create(in_chans=1)
    torch.testing.assert_close(gray.stem.conv.weight, plain.stem.conv.weight.sum(1, keepdim=True))
    headless, features = create(num_classes=0), create(features_only=True)
    assert "state_dict" not in features.pretrained_cfg
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        pooled = plain.forward_head(plain.forward_features(x), pre_logits=True)
        assert torch.equal(headless(x), pooled)
        assert all(map(torch.equal, features(x), plain.forward_intermediates(x)[1]))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda s: s.pop("norm.weight"), r"not the weights of this model \(missing key norm"),
        (lambda s: s.update(more=torch.zeros(1)), "unexpected key more"),
        (lambda s: s.update({"norm.bias": torch.zeros(3)}), "norm.bias has shape"),
        (lambda s: s["norm.bias"].fill_(torch.nan), "1 tensors hold NaN or infinity, as norm.bias"),
    ],
)  # fmt: skip
def test_weights_of_another_model(own_file, tmp_path, spoil, reason):
    model, server = own_file
    state = {key: value.clone() for key, value in model.state_dict().items()}
    spoil(state)
    torch.save(state, tmp_path / "x")
    server.files["/nano.pth"] = (tmp_path / "x").read_bytes()
    overlay = {"url": f"{server.address}/nano.pth"}
    with pytest.raises(WeightsError, match=reason) as caught:
        create = timm.create_model
        create("spanet_nano", pretrained=True, cache_dir=tmp_path, pretrained_cfg_overlay=overlay)
    assert str(caught.value).startswith(overlay["url"])
    assert not (tmp_path / "nano.pth").exists()


def test_code_in_a_fetched_file_is_not_run(own_file, tmp_path):
    _, server = own_file
    torch.save({"state_dict": nn.Linear(1, 1)}, tmp_path / "x")
    server.files["/nano.pth"] = (tmp_path / "x").read_bytes()
    overlay = {"url": f"{server.address}/nano.pth"}
    with pytest.raises(WeightsError, match="holds Python objects"):
        timm.create_model(
            "spanet_nano", pretrained=True, cache_dir=tmp_path, pretrained_cfg_overlay=overlay
        )


def test_create_pretrained_refuses_in_one_line(cached):
    for name, reason in (
        ("spanet_nano", "the nearest model that has some is spanet_small"),
        ("spanetv2_s36_hybrid", "the nearest model that has some is spanetv2_s18_pure"),
        ("spanet_small.kist", "unknown tag 'kist' of model spanet_small; it has kist_in1k"),
        ("spanet_smal", "did you mean 'spanet_small'"),
        ("test_byobnet_none", "unknown model"),
    ):
        with pytest.raises(UsageError, match=reason):
            create_pretrained(name, {})
    with pytest.raises(UsageError, match="not_there"):
        create_pretrained(NAME, {"not_there": 1})
    with pytest.raises(UsageError, match="not allowed here"):
        create_pretrained(NAME, {"pretrained_cfg_overlay": {"file": "x"}})
    with pytest.raises(UserError, match=r"spanet-medium\.pth: no such file"):
        create_pretrained("spanet_medium", {})
    assert issubclass(NotPublishedError, RuntimeError)


def test_failure_at_the_hub_is_one_line(monkeypatch):
    def fail(*_, **__):
        raise OSError("no route\nto host")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fail)
    with pytest.raises(UserError, match=r"weights cannot be loaded \(no route\)$"):
        create_pretrained("test_resnet", {})


@pytest.mark.parametrize("name", structures())
def test_own_state_dict_stays_as_it_is(name, build):
    model = build(name)
    state = model.state_dict()
    adapted = adapt_state_dict(state, model)
    assert adapted.keys() == state.keys()
    assert all(torch.equal(adapted[key], state[key]) for key in state)
