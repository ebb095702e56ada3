"""Keypoints of training targets: moved with their image, and the same in both parts of the data."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spanets.formats.coco.keypoints import Keypoints
from spanets.formats.coco.objects import CocoData, check_keypoints, match_keypoints


def move_points(
    points: Sequence[tuple[float, ...] | None], keypoints: Keypoints, placement: Any
) -> Tensor:
    """Returns the keypoints of objects after a transform, (N, K, 3): x, y and visibility.

    In a mirror image left and right swap. Outside of the image the visibility is 0, as for objects
    without keypoints.

    Args:
        points: See `Annotation.keypoints`.
        keypoints: The keypoints of the data set.
        placement: The `Placement` after the transform.
    """
    count = len(keypoints.names)
    values = [one or (0.0,) * (3 * count) for one in points]
    given = torch.tensor(values, dtype=torch.float64).reshape(-1, count, 3)
    matrix, (height, width) = placement.as_subclass(Tensor), placement.canvas_size
    places = given[..., :2] @ matrix[:, :2].T + matrix[:, 2]
    inside = ((places >= 0) & (places <= places.new_tensor([width, height]))).all(-1)
    moved = torch.cat([places, (given[..., 2] * inside)[..., None]], -1)
    if torch.linalg.det(matrix[:, :2]) < 0:
        moved = moved[:, keypoints.mirrored()]
    return moved.float()


def match_parts(train: CocoData, val: CocoData) -> CocoData:
    """Returns the validation part with the keypoints of the training part.

    Raises:
        UserError: a part has none, or they differ.
    """
    check_keypoints(train)
    check_keypoints(val)
    assert train.keypoints is not None, "read with keypoints"
    return match_keypoints(val, train.keypoints)


def describe_keypoints(keypoints: Keypoints, hflip: float) -> str:
    """Returns a note on the keypoints, and on those that swap in mirror images.

    Args:
        keypoints: The keypoints of the data set.
        hflip: Probability of mirror images in training.
    """
    pairs = keypoints.count_pairs()
    line = f"keypoints: {len(keypoints.names)}, pairs of left and right by name: {pairs}"
    if pairs:
        return f"{line}; they swap in mirror images"
    advice = "; if sides matter, turn mirror images off: data.hflip 0" if hflip else ""
    return f"{line}, so none swap in mirror images{advice}"
