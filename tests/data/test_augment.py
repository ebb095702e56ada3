"""Random changes to images: what moves, moves together; what is recoloured, stays in place."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms import v2

from spanets.data.augment import QuarterTurn, fit_sides, placements, recolouring, turn_boxes
from spanets.recipe.sections import DenseData


def scene(height: int, width: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Noise with one object, its box and its mask."""
    pixels = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    mask = torch.zeros(1, height, width, dtype=torch.uint8)
    mask[0, 1:4, 2:4] = 1
    box = tv_tensors.BoundingBoxes(
        torch.tensor([[2.0, 1.0, 4.0, 4.0]]), format="XYXY", canvas_size=(height, width)
    )
    return tv_tensors.Image(pixels), {"boxes": box, "masks": tv_tensors.Mask(mask)}


@pytest.mark.parametrize("size", [(8, 8), (7, 12), (33, 20)])
def test_turns_lose_nothing(size):
    torch.manual_seed(0)
    pixels, target = scene(*size)
    seen = set()
    for _ in range(40):
        turned, moved = QuarterTurn()(pixels, target)
        turns = [k for k in range(4) if torch.equal(turned, torch.rot90(pixels, k, (1, 2)))]
        assert len(turns) == 1
        assert torch.equal(moved["masks"], torch.rot90(target["masks"], turns[0], (1, 2)))
        rows, columns = (moved["masks"][0].any(dim).nonzero()[:, 0].tolist() for dim in (1, 0))
        around = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert moved["boxes"].tolist() == [around]
        seen.add(turns[0])
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("count", [0, 1, 5])
def test_boxes_turn_exactly(count):
    """As torchvision turns them, but for its roundings; it leaves the canvas of none as it was."""
    torch.manual_seed(0)
    corners = torch.rand(count, 2, 2) * torch.tensor([20.0, 33.0])
    values = torch.cat([corners.amin(1), corners.amax(1)], 1)
    boxes = tv_tensors.BoundingBoxes(values, format="XYXY", canvas_size=(33, 20))
    for turns in range(4):
        turned = turn_boxes(boxes, turns)
        assert turned.canvas_size == ((33, 20), (20, 33))[turns % 2]
        if count:
            theirs = v2.functional.rotate(boxes, 90.0 * turns, expand=True)
            assert turned.canvas_size == theirs.canvas_size
            torch.testing.assert_close(
                turned.as_subclass(torch.Tensor), theirs.as_subclass(torch.Tensor)
            )
    # A side less itself is rounded to a bit or two of float32, at 33.
    twice = turn_boxes(turn_boxes(boxes, 2), 2).as_subclass(torch.Tensor)
    torch.testing.assert_close(twice, values, rtol=0, atol=8e-6)


@given(
    st.integers(1, 400), st.integers(1, 400), st.integers(1, 300), st.none() | st.integers(300, 600)
)
@settings(deadline=None)
def test_sides_are_torchvisions(height, width, short, long):
    """Where these are a pixel at least; torchvision fails at less."""
    image = torch.empty((3, height, width), device="meta")
    theirs = v2.RandomShortestSize([short], long).make_params([image])["size"]
    assert fit_sides(height, width, short, long) == tuple(max(1, side) for side in theirs)


def test_colours_change_where_things_are_not():
    torch.manual_seed(0)
    pixels, target = scene(16, 16)
    recolour = v2.Compose(recolouring(DenseData(recolour=1.0)))
    changed = 0
    for _ in range(10):
        coloured, same = recolour(pixels, target)
        assert coloured.dtype == torch.uint8
        assert coloured.shape == pixels.shape
        assert all(torch.equal(same[name], target[name]) for name in target)
        changed += not torch.equal(coloured, pixels)
    assert changed == 10


def test_a_share_of_the_images_is_recoloured():
    torch.manual_seed(0)
    pixels, _ = scene(8, 8)
    recolour = v2.Compose(recolouring(DenseData(recolour=0.3)))
    changed = sum(not torch.equal(recolour(pixels), pixels) for _ in range(200))
    assert 35 <= changed <= 85  # 60 expected, four standard deviations


def test_a_plain_recipe_flips_and_no_more():
    assert [type(step) for step in placements(DenseData())] == [v2.RandomHorizontalFlip]
    assert recolouring(DenseData()) == []
