"""What a detector finds in an image depends on no other image: batches, orders, processes."""

import json

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch import nn

from spanets.detection import KINDS, Settings, make_detector
from spanets.detection.data import evaluation_loader
from spanets.detection.evaluation import measure
from spanets.detection.module import find_objects
from spanets.formats.coco.objects import CocoData
from spanets.formats.coco.reader import read_coco

SIZES = [(128, 96), (96, 128), (128, 60), (60, 128), (64, 64), (90, 70), (200, 10), (33, 47)]
"""Width and height: images of which some are padded in a batch of several."""

PREPROCESSING = {"short_side": 64, "long_side": 96, "mean": [0.5] * 3, "std": [0.25] * 3}
SMALL = Settings(
    channels=16,
    features=24,
    regions=24,
    proposals=40,
    anchor_scale=4,
    keypoint_convolutions=2,
    keypoint_channels=16,
)


@pytest.fixture(scope="module", params=KINDS)
def detector(request) -> nn.Module:
    """One with SPANet's global filters that finds something although it never learnt."""
    torch.manual_seed(0)
    detector = make_detector(request.param, "spanet_nano", 2, settings=SMALL)
    with torch.no_grad():
        for name, value in detector.named_parameters():
            if name.endswith(("cls_logits.bias", "objectness.bias")):
                value.fill_(0.5)
    return detector.eval()


@pytest.fixture(scope="module")
def truth(detector, tmp_path_factory) -> CocoData:
    """Images of noise, whose objects are a part of what the detector finds in each alone."""
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    content = {"images": [], "annotations": [], "categories": [{"id": i} for i in (3, -4)]}
    for category in content["categories"]:
        category["name"] = f"class {category['id']}"
    for number, (width, height) in enumerate(SIZES, start=-3):
        pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        entry = {"id": number, "file_name": f"{number}.png", "width": width, "height": height}
        content["images"].append(entry)
    path = folder / "a.json"
    path.write_text(json.dumps(content))
    for images, targets in evaluation_loader(read_coco(path, folder), PREPROCESSING, 1, 0):
        (found,), number = find_objects(detector, images, targets), int(targets[0]["image_id"])
        for box, label in zip(
            found["boxes"][::3].tolist(), found["labels"][::3].tolist(), strict=True
        ):
            x, y, right, bottom = np.round(box) + np.array([0, 0, 1, 1])
            polygon = [x, y, right, y, right, bottom, x, bottom]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": (3, -4)[label - 1],
                    "bbox": [x, y, right - x, bottom - y],
                    "segmentation": [polygon],
                }
            )
    path.write_text(json.dumps(content))
    return read_coco(path, folder)


def masks(detector: nn.Module) -> bool:
    return hasattr(detector, "roi_heads") and bool(detector.roi_heads.masks)


def test_batches_and_orders_change_nothing(detector, truth):
    """To the last bit, and so average precisions do not change in any digit."""
    shuffled = np.random.default_rng(1).permutation(len(truth.images))
    orders = [list(range(len(truth.images))), list(range(len(truth.images)))[::-1], shuffled]
    results = []
    for batch, taken in ((1, orders[:1]), (2, orders[1:2]), (4, orders[2:]), (7, orders[:1])):
        for order in taken:
            data = CocoData([truth.images[i] for i in order], truth.classes, truth.category_ids)
            loader = evaluation_loader(data, PREPROCESSING, batch, 0)
            results.append(measure(detector, loader, data, masks(detector)))
    assert all(one == results[0] for one in results)
    assert 0.05 < results[0]["box_ap"] < 0.95  # or it would say little


def test_a_list_is_its_images_one_by_one(detector):
    images = [torch.randn(3, height, width) for width, height in SIZES[:4]]
    with torch.no_grad():
        together = detector(images)
        for image, found in zip(images, together, strict=True):
            (alone,) = detector([image])
            assert len(alone["boxes"])
            assert alone.keys() == found.keys()
            assert all(torch.equal(alone[name], found[name]) for name in alone)


@pytest.mark.parametrize("processes", [2, 3, 5, 11])
def test_processes_see_equally_many(truth, processes, monkeypatch):
    """Every image is seen; where parameters are shared out, all have to compute as often."""
    seen = []
    for rank in range(processes):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        loader = evaluation_loader(truth, PREPROCESSING, 2, 0, processes)
        batches = [[int(target["image_id"]) for target in targets] for _, targets in loader]
        assert len(batches) == len(loader)
        seen.append([number for batch in batches for number in batch])
    assert len({len(numbers) for numbers in seen}) == 1
    assert {number for numbers in seen for number in numbers} == {i.id for i in truth.images}


def test_masks_laid_in_one_by_one(detector, truth):
    """Are those that a detector gives all at once, in the pixels of the file."""
    if not masks(detector):
        pytest.skip("it finds no masks")
    images, targets = next(iter(evaluation_loader(truth, PREPROCESSING, 1, 0)))
    with torch.no_grad():
        (found,) = find_objects(detector, images, targets)
        size = tuple(targets[0]["size"].tolist())
        (whole,) = detector(images, sizes=[size])
    assert whole["masks"].shape == (len(whole["boxes"]), 1, *size)
    assert torch.equal(torch.stack(list(found["masks"])), whole["masks"])
    kept = found["scores"] >= found["scores"][3]
    assert torch.equal(torch.stack(list(found["masks"][kept])), whole["masks"][kept])
