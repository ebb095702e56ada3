"""Classifier heads: SPANet's linear one, and SPANetV2's with a norm and an MLP."""

from typing import Any

import torch
from timm.layers import ClassifierHead, LayerNorm2d, SelectAdaptivePool2d
from timm.models.metaformer import MlpHead
from torch import Tensor, nn


class LinearHead(ClassifierHead):
    """SPANet's classifier: pooling and a linear layer, which without pooling maps each position."""

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Maps (B, C, H, W) to logits (B, classes), or to pooled features (B, C).

        Without pooling the result keeps its positions: (B, classes, H, W) or (B, C, H, W).
        """
        if pre_logits or not self.global_pool.is_identity():
            return super().forward(x, pre_logits)
        return classify_positions(self.fc, self.drop(x))


def classify_positions(classifier: nn.Module, x: Tensor) -> Tensor:
    """Applies a classifier of vectors at each position of (B, C, H, W)."""
    return classifier(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class NormMlpHead(nn.Module):
    """SPANetV2's classifier: pooling, LayerNorm, and MetaFormer's MLP head.

    Args:
        in_features: Channels C.
        num_classes: Classes; 0 leaves the MLP out.
        pool_type: timm's pooling name; "" keeps the map.
        mlp_ratio: Hidden dimension over C.
        drop_rate: Dropout before the last linear layer.
        norm: False leaves the norm out.

    Raises:
        ValueError: a pooling that changes the number of channels; the norm could not follow it.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        pool_type: str = "avg",
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        norm: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.in_features = in_features
        self.mlp_ratio = mlp_ratio
        self.drop_rate = drop_rate
        self.global_pool = self._make_pool(pool_type)
        self.norm = LayerNorm2d(in_features, eps=1e-6, **factory) if norm else nn.Identity()
        self.fc = self._make_classifier(num_classes, **factory)

    def reset(self, num_classes: int, pool_type: str | None = None) -> None:
        """Makes a new MLP for this many classes; 0 removes it."""
        if pool_type is not None:
            self.global_pool = self._make_pool(pool_type)
        self.fc = self._make_classifier(num_classes)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Maps (B, C, H, W) to logits (B, classes), or to pooled and normed features (B, C).

        Without pooling the result keeps its positions: (B, classes, H, W) or (B, C, H, W).
        """
        x = self.norm(self.global_pool(x))
        if self.global_pool.is_identity():
            return x if pre_logits else classify_positions(self.fc, x)
        x = x.flatten(1)
        return x if pre_logits else self.fc(x)

    def _make_pool(self, pool_type: str) -> SelectAdaptivePool2d:
        pool = SelectAdaptivePool2d(pool_type=pool_type)
        if pool.feat_mult() != 1:
            raise ValueError(
                f"global_pool is {pool_type!r}, which changes the number of channels; allowed: "
                "avg, max, avgmax, fast and '' (no pooling)"
            )
        return pool

    def _make_classifier(self, num_classes: int, **factory: Any) -> nn.Module:
        if not num_classes:
            return nn.Identity()
        return MlpHead(
            self.in_features,
            num_classes,
            mlp_ratio=self.mlp_ratio,
            norm_layer=nn.LayerNorm,
            drop_rate=self.drop_rate,
            **factory,
        )
