"""What may be smaller or larger in a detector than in the papers' COCO runs."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

from torch import nn

MAX_SIZE = 16384


@dataclass(frozen=True)
class Settings:
    """Sizes of a detector's parts; the defaults are the papers'.

    Small ones are for small images and computers: two thirds of the operations of Mask R-CNN on a
    small backbone are in its heads, for each region that is sampled.

    Attributes:
        channels: Of the feature pyramid and the convolutions on it.
        features: Of the linear layers.
        regions: Sampled of an image, for training.
        proposals: Regions that an image keeps; in the test at most 1000.
        anchor_scale: Side of the smallest anchor of each level, in strides.
        box_convolutions: So many 3×3 convolutions and one linear layer tell a region's class and
            box. None is as in the papers: two linear layers in Mask R-CNN, four convolutions in
            Cascade Mask R-CNN.
        norm_groups: Of a GroupNorm behind the pyramid's, the boxes' and the masks' convolutions,
            for training from scratch (arXiv 1811.08883, section 3). None is without, as in the
            papers, whose backbones are pretrained.
    """

    channels: int = 256
    features: int = 1024
    regions: int = 512
    proposals: int = 1000
    anchor_scale: float = 8.0
    box_convolutions: int | None = None
    norm_groups: int | None = None

    def __post_init__(self) -> None:
        """Raises a ValueError for sizes that nobody means."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        for name, value in given.items():
            if not isinstance(value, int | float) or not 0 < value <= MAX_SIZE:
                raise ValueError(f"{name} is {value!r}, must be a number up to {MAX_SIZE}")
        if self.norm_groups and self.channels % self.norm_groups:
            raise ValueError(f"norm_groups is {self.norm_groups}, must divide {self.channels}")

    @property
    def norm_layer(self) -> Callable[[int], nn.Module] | None:
        """What makes the norm of so many channels, if there is one."""
        return partial(nn.GroupNorm, self.norm_groups) if self.norm_groups else None


PAPERS = {
    "retinanet": Settings(anchor_scale=4.0),
    "mask_rcnn": Settings(),
    "cascade_mask_rcnn": Settings(proposals=2000),
}
"""The papers' settings by kind of detector."""

TEST_PROPOSALS = 1000
