"""Explanations: what they look at is what speaks for the class."""

import pytest
import timm
import torch
from PIL import Image
from torch import nn

import spanets_cli
from spanets.analysis.study.explain import choose_site, context_maps, explain, score_cam
from spanets_runtime.errors import UsageError, UserError


class Corner(nn.Module):
    """Class 1 if the upper left corner is bright; two channels look at opposite corners."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Identity()

    def forward(self, images):
        bright = images.mean(1)
        first, second = bright.clone(), bright.clone()
        first[:, 8:] = 0
        first[:, :, 8:] = 0
        second[:, :8] = 0
        second[:, :, :8] = 0
        seen = self.look(torch.stack([first, second, first * 0], 1))
        score = 40 * seen[:, 0].mean((1, 2))
        return torch.stack([-score, score], 1)


def test_score_cam_finds_what_speaks_for_the_class():
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model = Corner()
    maps, classes = score_cam(model, images, "look", [1, 1])
    assert classes == [1, 1]
    assert maps.shape == (2, 16, 16)
    assert maps.min() == 0
    assert maps.max() == 1
    assert maps[:, :8, :8].mean() > 1.2 * maps[:, 8:, 8:].mean()
    _, likeliest = score_cam(model, images, "look", batch_size=1)
    assert likeliest == model(images).argmax(1).tolist()


def test_contexts_of_every_mixer():
    model = timm.create_model("spanet_nano").eval()
    images = torch.randn(2, 3, 64, 96)
    maps = context_maps(model, images)
    assert len(maps) == 10
    assert maps["stages.0.blocks.0.token_mixer.context"].shape == (2, 16, 24)
    assert all((m >= 0).all() for m in maps.values())
    with pytest.raises(UserError, match="ResNet has no SPAM"):
        context_maps(timm.create_model("test_resnet"), images)


def test_a_sheet_for_several_images(small_run, photos, tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    words = ["explain", str(small_run / "last.ckpt"), str(photos / "cat"), str(broken)]
    words += ["--out", str(tmp_path / "out")]
    assert spanets_cli.main(words) == 1
    told = capsys.readouterr()
    assert "broken.png: the file is empty" in told.err
    with Image.open(told.out.strip()) as sheet:
        assert sheet.height > sheet.width  # a row for each image


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"target": "cta"}, UsageError, "--target: unknown class 'cta'; did you mean 'cat'?"),
        ({"what": ["magic"]}, UsageError, "--what is 'magic', allowed: context, score-cam"),
        ({"what": ["context"]}, UserError, "has no SPAM"),
        ({"site": "stages.9"}, UsageError, "no module matches 'stages.9'"),
    ],
)
def test_mistakes(changes, kind, said, small_run, photos, tmp_path):
    with pytest.raises(kind, match=said):
        explain(small_run / "last.ckpt", [photos / "cat/0.png"], tmp_path, **changes)


def test_the_site_is_the_last_stage_unless_named():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    with pytest.raises(UsageError, match="name a module with --site, such as 0 or 1"):
        choose_site(network)
    assert choose_site(network, "1") == "1"
    with pytest.raises(UsageError, match="--site: no module matches '7'"):
        choose_site(network, "7")
    network.feature_info = [{"module": "gone"}, {"module": "0"}]
    assert choose_site(network) == "0"
    assert choose_site(nn.ModuleDict({"layer1": nn.Identity(), "layer2": network})) == "layer2"


def test_sites_that_are_several_or_no_map(small_run, photos, tmp_path):
    with pytest.raises(UsageError, match=r"matches .* modules, such as layer1; name one"):
        explain(small_run / "last.ckpt", [photos / "cat/0.png"], tmp_path, site="layer*")
    with pytest.raises(UserError, match="fc: no map"):
        explain(small_run / "last.ckpt", [photos / "cat/0.png"], tmp_path, site="fc")
    with pytest.raises(UsageError, match="200 images are too many for a sheet, at most 100"):
        explain(small_run / "last.ckpt", [photos / "cat/0.png"] * 200, tmp_path)


def test_a_sheet_replaces_nothing_of_others(small_run, photos, tmp_path):
    sheet = tmp_path / "explained.png"
    sheet.write_bytes(b"precious")
    with pytest.raises(UserError, match="`spanets` did not write it"):
        explain(small_run / "last.ckpt", [photos / "cat/0.png"], tmp_path)
    assert sheet.read_bytes() == b"precious"
    sheet.unlink()
    for _ in range(2):  # its own may be drawn again
        explain(small_run / "last.ckpt", [photos / "cat/0.png"], tmp_path, site="layer4")
