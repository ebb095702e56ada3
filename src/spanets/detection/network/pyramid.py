"""The neck of all detectors: a feature pyramid on a backbone's maps."""

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from spanets.backbones.dense import DenseBackbone
from spanets.detection.network.settings import Settings


class FeaturePyramid(nn.Module):
    """A backbone with torchvision's feature pyramid: five maps with the same number of channels.

    Paper: Feature Pyramid Networks for Object Detection, arXiv 1612.03144.

    Args:
        body: A backbone with maps at strides 4 to 32, or 8 to 32.
        settings: Settings, of which `channels` and `norm_groups` are used.
        extra_convolutions: Whether to add two maps by convolutions of stride 2 on the last map of
            the body, as in RetinaNet; if not, adds one map by subsampling.

    Attributes:
        out_channels: Channels of every map, for torchvision's detectors.
    """

    def __init__(self, body: DenseBackbone, settings: Settings, extra_convolutions: bool) -> None:
        super().__init__()
        channels = settings.channels
        extra: LastLevelP6P7 | LastLevelMaxPool = LastLevelMaxPool()
        if extra_convolutions:
            extra = LastLevelP6P7(body.out_channels[-1], channels)
            extra.use_P5 = False  # torchvision would use P5 if the numbers of channels are equal
        self.body = body
        self.fpn = FeaturePyramidNetwork(
            list(body.out_channels), channels, extra, settings.norm_layer
        )
        self.out_channels = channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps images (B, 3, H, W) to five maps (B, channels, H / stride, W / stride)."""
        return self.fpn({str(i): x for i, x in enumerate(self.body(images))})
