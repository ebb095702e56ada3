"""Plain pooling as a token mixer (PoolFormer)."""

import torch.nn.functional as F
from torch import Tensor, nn


class Pooling(nn.Module):
    """Replaces each token by the difference of its neighbourhood's mean and itself.

    `y = AvgPool_K(x) - x`; at the borders the mean is over the tokens that exist. It has no
    parameters. NCHW in and out, any size.

    Yu, Luo, Zhou, Si, Zhou, Wang, Feng and Yan, MetaFormer Is Actually What You Need for Vision,
    CVPR 2022, arXiv 2111.11418.

    Args:
        kernel_size: Side K of the neighbourhood, odd.
    """

    def __init__(self, kernel_size: int = 3) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}, must be odd")
        self.kernel_size = kernel_size

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the tokens of (B, C, H, W)."""
        k = self.kernel_size
        return F.avg_pool2d(x, k, stride=1, padding=k // 2, count_include_pad=False) - x
