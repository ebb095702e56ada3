"""Keypoints: the branch that finds them, and what flips, crops, views and metrics make of them."""

import contextlib
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.transforms import v2

from spanets.data.augment import QuarterTurn
from spanets.data.placement import Placement
from spanets.detection import Settings, figures, keypoints_of
from spanets.detection.data import RandomSizeCrop, TrainingImages, make_loaders, train_transform
from spanets.detection.figures import FIGURE, draw_figures, write_figures
from spanets.detection.keypoints import describe_keypoints, move_points
from spanets.detection.metrics import KEYPOINT_NAMES, DetectionMetrics, oks_sigmas
from spanets.detection.network.heads import KeypointBranch, Samples
from spanets.detection.overlay import draw_objects
from spanets.detection.reading import read_part
from spanets.detection.recipe import DetectionData
from spanets.detection.views import Augmented, mirror
from spanets.formats.coco.keypoints import Keypoints, count_labelled
from spanets.formats.coco.objects import Annotation, CocoData, CocoImage, to_coco
from spanets.training.options import Views
from spanets_runtime.errors import UsageError, UserError

SMALL = Settings(channels=8, keypoints=3, keypoint_convolutions=2, keypoint_channels=8)
SIDES = Keypoints(("nose", "Left_Eye", "right_eye", "l_hand", "R_hand", "left_ear"))


# ---- the branch


@pytest.fixture
def branch() -> KeypointBranch:
    torch.manual_seed(0)
    return KeypointBranch(SMALL).eval()


def pyramid(images: int = 1) -> dict[str, torch.Tensor]:
    return {str(i): torch.randn(images, SMALL.channels, 32 >> i, 32 >> i) for i in range(4)}


def test_the_branch_is_torchvisions(branch):
    """Keypoints and scores of the same boxes, from a peer of the same layers."""
    boxes = [torch.tensor([[0.0, 0.0, 20.0, 30.5], [5.0, 5.0, 45.0, 40.0]])]
    peer = RoIHeads(
        *(lambda *_: None, lambda _: None, lambda _: (torch.zeros(2, 2), torch.zeros(2, 8))),
        *(0.5, 0.5, 512, 0.25, None, 0.0, 0.5, 100),
        keypoint_roi_pool=branch.pool,
        keypoint_head=branch.head,
        keypoint_predictor=branch.predictor,
    ).eval()
    peer.postprocess_detections = lambda *_: (boxes, [torch.ones(2)], [torch.ones(2).long()])
    maps = pyramid()
    with torch.no_grad():
        (theirs,), _ = peer(maps, boxes, [(64, 64)])
        (ours,) = branch.detect(maps, boxes, [(64, 64)])
    assert torch.equal(ours["keypoints"], theirs["keypoints"])
    assert torch.equal(ours["keypoints_scores"], theirs["keypoints_scores"])
    assert ours["keypoints"].shape == (2, 3, 3)


def samples_of(box: torch.Tensor, count: int = 1) -> Samples:
    labels, objects = torch.ones(count).long(), torch.zeros(count).long()
    return Samples([box.expand(count, 4)], [labels], [objects], [labels > 1])


def test_the_loss_is_the_cross_entropy_of_labelled_points(branch):
    """Uniform heatmaps cost log(56²), whatever the place; points without a label cost nothing."""
    torch.nn.init.zeros_(branch.predictor.kps_score_lowres.weight)
    box = torch.tensor([[10.0, 10.0, 50.0, 60.0]])
    points = torch.tensor([[[12.0, 20.0, 2.0], [40.0, 50.0, 1.0], [0.0, 0.0, 0.0]]])
    for visible, expected in (((2, 1, 0), math.log(56**2)), ((0, 0, 0), 0.0)):
        points[0, :, 2] = torch.tensor(visible)
        loss = branch.loss(pyramid(), samples_of(box), [(64, 64)], [{"keypoints": points}])
        assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_objects_without_a_label_teach_nothing(branch):
    points = torch.zeros(1, 3, 3)
    samples = samples_of(torch.tensor([[10.0, 10.0, 50.0, 60.0]]), 4)
    branch.loss(pyramid(), samples, [(64, 64)], [{"keypoints": points}]).backward()
    assert all((value.grad == 0).all() for value in branch.parameters())


@pytest.mark.parametrize("seed", range(5))
def test_the_heatmap_of_a_point_gives_the_point(branch, monkeypatch, seed):
    """Within its cell of the heatmap and a pixel, in boxes that are not smaller than a heatmap."""
    rng = np.random.default_rng(seed)
    corner, side = rng.uniform(0, 30, 2), rng.uniform(60, 150, 2)
    place = corner + rng.uniform(0.05, 0.95, (3, 2)) * side
    cells = np.floor((place - corner) / side * 56).astype(int)
    logits = torch.zeros(1, 3, 56, 56)
    for point, (column, row) in enumerate(cells):
        logits[0, point, row, column] = 10
    monkeypatch.setattr(branch, "forward", lambda *_: logits)
    box = torch.tensor(np.concatenate([corner, corner + side]), dtype=torch.float32)[None]
    (found,) = branch.detect({}, [box], [(200, 200)])
    apart = np.abs(found["keypoints"][0, :, :2].numpy() - place)
    assert (apart <= side / 56 + 1).all()


# ---- pairs, flips and crops


def test_pairs_of_left_and_right():
    assert SIDES.mirrored() == [0, 2, 1, 4, 3, 5]
    assert SIDES.count_pairs() == 2
    assert FIGURE.count_pairs() == 2
    spoken = Keypoints(("eye left", "eye right", "tail-l", "tail-r", "leaf", "reaf", "leftover"))
    assert spoken.mirrored() == [1, 0, 3, 2, 4, 5, 6]
    assert Keypoints.unnamed(4).count_pairs() == 0
    assert "by name: 2; they swap" in describe_keypoints(FIGURE, 0.5)
    assert "data.hflip 0" in describe_keypoints(Keypoints.unnamed(2), 0.5)


@given(st.lists(st.text("lefrigh_ t", max_size=8), min_size=1, max_size=9, unique=True))
def test_swapping_twice_changes_nothing(names):
    order = Keypoints(tuple(names)).mirrored()
    assert [order[i] for i in order] == list(range(len(names)))


points_st = st.lists(
    st.tuples(st.floats(0, 80), st.floats(0, 60), st.integers(0, 2)), min_size=6, max_size=6
)


@given(points_st)
def test_flips_swap_points_and_turns_do_not(points):
    """The swap is that of the names, the place that of the pixel."""
    flat = tuple(float(value) for point in points for value in point)
    placement = Placement.of_file(60, 80)
    (same,) = move_points([flat], SIDES, placement)
    assert np.allclose(same, points, atol=1e-4)
    flipped = v2.functional.horizontal_flip(placement)
    (found,) = move_points([flat], SIDES, flipped)
    expected = [(80 - x, y, v) for x, y, v in (points[i] for i in SIDES.mirrored())]
    assert np.allclose(found, expected, atol=1e-4)
    turned = QuarterTurn().transform(placement, {"turns": 1})
    (found,) = move_points([flat], SIDES, turned)
    assert np.allclose(found, [(y, 80 - x, v) for x, y, v in points], atol=1e-4)


@given(points_st, st.integers(0, 10**6))
def test_points_outside_of_a_crop_are_not_labelled(points, seed):
    torch.manual_seed(seed)
    flat = tuple(float(value) for point in points for value in point)
    crop = RandomSizeCrop(20, 60)
    image = torch.zeros(3, 60, 80)
    params = crop.make_params([image])
    placement = crop.transform(Placement.of_file(60, 80), params)
    (found,) = move_points([flat], SIDES, placement)
    for (x, y, v), (moved_x, moved_y, kept) in zip(points, found.tolist(), strict=True):
        x, y = x - params["left"], y - params["top"]
        inside = 0 <= x <= params["width"] and 0 <= y <= params["height"]
        assert kept == (v if inside else 0)
        assert (moved_x, moved_y) == pytest.approx((x, y), abs=1e-4)


def test_objects_without_keypoints_have_zeros():
    (found,) = move_points([None], SIDES, Placement.of_file(60, 80))
    assert not found[:, 2].any()


# ---- the figures


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Ten images of figures, on noise."""
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    out = tmp_path_factory.mktemp("figures") / "set"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "load_photographs", lambda part: [Image.fromarray(noise)])
        write_figures(out, images=10, size=64)
    return out


def section(folder: Path, **changes) -> DetectionData:
    parts = {
        f"{part}_{what}": f"{what}/{part}{'.json' if what == 'annotations' else ''}"
        for part in ("train", "val")
        for what in ("images", "annotations")
    }
    plain = {"short_side": 64, "long_side": 128, "train_short_sides": (64, 64), "workers": 0}
    return DetectionData(**{**parts, **plain, "root": str(folder), **changes})


def test_figures_are_what_they_say(folder):
    """Visible keypoints lie on the visible part of their figure, covered ones on none of it."""
    rng = np.random.default_rng(1)
    photograph = Image.fromarray(rng.integers(0, 255, (90, 120, 3), dtype=np.uint8))
    drawn = [draw_figures(photograph, 64, rng) for _ in range(8)]
    for one in drawn:
        assert not (one.masks.sum(0) > 1).any()
        for mask, points, seen in zip(one.masks, one.points, one.visibilities(), strict=True):
            for (x, y), visible in zip(points, seen, strict=True):
                inside = 0 <= x < 64 and 0 <= y < 64
                assert (visible > 0) == inside
                assert not inside or mask[int(y), int(x)] == (visible == 2)
    part = read_part(section(folder), "train", keypoints=True)
    assert part.keypoints == FIGURE
    assert all(count_labelled(a.keypoints) for i in part.images for a in i.annotations)
    assert read_part(section(folder), "train").keypoints is None


def test_targets_keep_their_place_in_the_object(folder):
    """After flips and resizes, as a share of the box, left and right exchanged with them."""
    data = section(folder, hflip=1.0, train_short_sides=(96, 96))
    part = read_part(data, "train", keypoints=True)
    _, target = TrainingImages(part, train_transform(data), False, 0)[0]
    annotations = part.images[0].annotations
    assert len(target["keypoints"]) == len(annotations) > 0
    assert target["keypoints"].dtype == torch.float32
    for points, box, annotation in zip(
        target["keypoints"], target["boxes"], annotations, strict=True
    ):
        left, top, right, bottom = annotation.box
        own = np.reshape(annotation.keypoints, (-1, 3))[FIGURE.mirrored()]
        seen = own[:, 2] > 0
        across = 1 - (own[:, 0] - left) / (right - left)
        found = (points[:, 0] - box[0]) / (box[2] - box[0])
        assert np.allclose(found[seen], across[seen], atol=1e-4)
        down = (own[:, 1] - top) / (bottom - top)
        found = (points[:, 1] - box[1]) / (box[3] - box[1])
        assert np.allclose(found[seen], down[seen], atol=1e-4)
        assert np.array_equal(points[:, 2], own[:, 2])


def test_loaders_with_keypoints(folder):
    loaders = make_loaders(section(folder), False, 0, 2, keypoints=True)
    assert any("keypoints: 7, pairs of left and right by name: 2" in note for note in loaders.notes)
    _, targets = next(iter(loaders.train))
    assert all(t["keypoints"].shape == (len(t["labels"]), 7, 3) for t in targets)
    assert "mask_bits" not in targets[0]
    plain = make_loaders(section(folder), False, 0, 2)
    assert "keypoints" not in next(iter(plain.train))[1][0]


# ---- metrics

SIZE = (300, 320)


def random_data(rng, count: int) -> CocoData:
    """Objects of two classes with random keypoints, some without a label, some crowds."""
    numbers = iter(range(1000))

    def annotate() -> Annotation:
        x, y = rng.uniform(0, 250, 2)
        width, height = rng.uniform(10, 150, 2)
        box = (x, y, min(x + width, SIZE[1]), min(y + height, SIZE[0]))
        places = rng.uniform(box[:2], box[2:], (count, 2))
        seen = rng.integers(0, 3, count) * (rng.random() > 0.15)
        points = tuple(np.column_stack([places, seen]).ravel().tolist())
        area = 0.6 * (box[2] - box[0]) * (box[3] - box[1])
        label, crowd = int(rng.integers(1, 3)), bool(rng.random() < 0.1)
        return Annotation(next(numbers), label, box, area, crowd, None, points)

    images = [
        CocoImage(3 * i - 4, Path(f"{i}.png"), *SIZE[::-1], tuple(annotate() for _ in range(n)))
        for i, n in enumerate(rng.integers(0, 30, 8))
    ]
    return CocoData(images, ["a", "b"], [9, 4], keypoints=Keypoints.unnamed(count))


def random_found(rng, image: CocoImage, count: int) -> dict[str, torch.Tensor]:
    """The objects, moved a little, some missed or twice."""
    chosen = [a for a in image.annotations for _ in range(rng.integers(0, 3))]
    boxes = np.array([a.box for a in chosen]).reshape(-1, 4)
    points = np.array([a.keypoints for a in chosen]).reshape(-1, count, 3)
    scale = rng.choice([0.5, 3, 8], (len(chosen), 1, 1))
    places = points[..., :2] + scale * rng.normal(size=points[..., :2].shape)
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32),
        "labels": torch.tensor([a.label for a in chosen], dtype=torch.int64),
        "scores": torch.tensor(rng.integers(5, 100, len(chosen)) / 100, dtype=torch.float32),
        "keypoints": torch.tensor(
            np.concatenate([places, np.ones_like(places[..., :1])], -1), dtype=torch.float32
        ),
        "keypoints_scores": torch.rand(len(chosen), count),
    }


def peer(data: CocoData, results: list[dict], sigmas, category: int | None = None) -> list[float]:
    """The first six numbers of pycocotools, from COCO's own result format."""
    keys = ("image_id", "category_id", "keypoints", "score")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = to_coco(data)
        truth.createIndex()
        found = [{key: result[key] for key in keys} for result in results]
        evaluation = COCOeval(truth, truth.loadRes(found), "keypoints")
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        if category is not None:
            evaluation.params.catIds = [category]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats[:6])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("count", "sigma"), [(17, None), (17, 0.1), (7, None), (1, 0.08)])
def test_as_pycocotools_measures(seed, count, sigma):
    rng = np.random.default_rng(seed)
    data = random_data(rng, count)
    metrics = DetectionMetrics(data, masks=False, sigma=sigma)
    for image in data.images:
        target = {"image_id": torch.tensor(image.id)}
        metrics.update([target], [random_found(rng, image, count)])
    results = [one for number in sorted(metrics.results) for one in metrics.results[number]]
    assert max(len(found) for found in metrics.results.values()) > 20
    sigmas = oks_sigmas(count, sigma)
    assert (sigmas is None) == (count == 17 and sigma is None)
    measured = metrics.measure()["keypoint"]
    expected = peer(data, results, sigmas)
    assert 0.05 < expected[0] < 0.95  # a case that tells something
    # The same arithmetic in another order: 1e-12 is above its rounding.
    assert list(measured.overall.values()) == pytest.approx(expected, abs=1e-12)
    assert tuple(measured.overall) == KEYPOINT_NAMES
    for name, category in zip(data.classes, data.category_ids, strict=True):
        theirs = peer(data, results, sigmas, category)
        for value, their in zip(measured.by_class[name].values(), theirs, strict=True):
            assert math.isnan(value) if their < 0 else value == pytest.approx(their, abs=1e-12)


def test_nothing_found_and_nothing_labelled():
    data = random_data(np.random.default_rng(0), 7)
    values = DetectionMetrics(data, masks=False).compute()
    assert values["keypoint_ap"] == values["keypoint_ar"] == values["box_ap"] == 0
    images = [
        replace(i, annotations=tuple(replace(a, keypoints=None) for a in i.annotations))
        for i in data.images
    ]
    values = DetectionMetrics(replace(data, images=images), masks=False).compute()
    assert math.isnan(values["keypoint_ap"]) and not math.isnan(values["box_ap"])


# ---- views and pictures


class Sided(torch.nn.Module):
    """Finds one object, whose left keypoint is the bright pixel further to the right."""

    def forward(self, images, targets=None, sizes=None, paste=True):
        (image,), ((height, width),) = images, sizes
        columns = image[0].sum(0).nonzero()[:, 0].float() + 0.5
        x = torch.stack([columns.max(), columns.min()]) * width / image.shape[2]
        points = torch.stack([x, torch.full((2,), height / 2), torch.ones(2)], 1)
        # The mirror image, whose first pixel is bright, is surer.
        score = 0.9 if image[0, :, 0].any() else 0.6
        box = [width / 4, height / 4, 3 * width / 4, 3 * height / 4]
        return [
            {
                "boxes": torch.tensor([box]),
                "labels": torch.tensor([1]),
                "scores": torch.tensor([score]),
                "keypoints": points[None],
                "keypoints_scores": torch.tensor([[1.0, 2.0]]) * score,
            }
        ]


def test_mirror_images_find_the_same_sides():
    image = torch.zeros(3, 40, 60)
    image[0, 10, [20, 59]] = 1
    sides = Keypoints(("left", "right"))
    model = Augmented(Sided(), Views(), sides.mirrored())
    (found,) = model([image], sizes=[(80, 120)])
    assert found["scores"].tolist() == pytest.approx([0.9])
    assert found["keypoints"][0, :, 0].tolist() == pytest.approx([119, 41])
    assert found["keypoints_scores"][0].tolist() == pytest.approx([1.8, 0.9])
    twice = mirror(mirror(found, 120, [1, 0]), 120, [1, 0])
    assert all(torch.equal(found[name], twice[name]) for name in found)


def test_pictures_show_points_and_lines():
    gray = Image.new("RGB", (200, 200), (128,) * 3)
    found = {
        "boxes": torch.tensor([[20.0, 20.0, 180.0, 180.0]]),
        "labels": torch.tensor([1]),
        "scores": torch.tensor([0.9]),
        "keypoints": torch.tensor([[[50.0, 100.0, 1.0], [150.0, 100.0, 1.0], [100.0, 50.0, 1.0]]]),
    }
    picture = draw_objects(gray, found, ["a"], skeleton=((0, 1),))
    for place in ((50, 100), (150, 100), (100, 50)):
        assert picture.getpixel(place) == (255, 255, 255)
    assert picture.getpixel((100, 100)) == picture.getpixel((20, 100)) != (128, 128, 128)
    assert draw_objects(gray, found, ["a"]).getpixel((100, 100)) == (128, 128, 128)
    assert picture.getpixel((100, 75)) == (128, 128, 128)


# ---- descriptions


def test_descriptions_of_checkpoints():
    described = {"kind": "keypoint_rcnn", "settings": {"keypoints": 7}}
    assert keypoints_of({**described, "keypoints": FIGURE.describe()}) == FIGURE
    assert keypoints_of({"kind": "mask_rcnn"}) is None
    for wrong in (None, {"names": ["a"]}, {"names": ["a"], "skeleton": []},
                  {"names": ["a"] * 7, "skeleton": [[0, 7]]}):  # fmt: skip
        with pytest.raises(UsageError, match="description is damaged"):
            keypoints_of({**described, "keypoints": wrong})


def test_the_files_must_have_keypoints(folder, tmp_path):
    data = section(folder)
    part = read_part(data, "train", keypoints=True)
    bare = to_coco(replace(part, keypoints=None))
    for image, own in zip(bare["images"], part.images, strict=True):
        image["file_name"] = own.path.name
    path = tmp_path / "bare.json"
    path.write_text(json.dumps(bare))
    with pytest.raises(UserError, match="no annotation has keypoints, which keypoint_rcnn needs"):
        make_loaders(replace(data, train_annotations=str(path)), False, 0, 2, keypoints=True)
