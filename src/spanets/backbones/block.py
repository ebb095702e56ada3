"""The MetaFormer block: norm, token mixer, norm, MLP, each half with a shortcut. NCHW."""

from collections.abc import Callable
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from spanets.backbones.layers import ChannelScale
from spanets.mixers.folding import fold_norm, fold_scale

BRANCH_SCALES = ("res_scale", "layer_scale", "none")
LAYER_SCALE_INIT = 1e-5

Layer = Callable[..., nn.Module]


class Block(nn.Module):
    """`x ← s₁ ⊙ x + branch(mixer(norm(x)))`, `x ← s₂ ⊙ x + branch(MLP(norm(x)))`.

    ResScale is the factor s on the shortcut; LayerScale is a factor on the branch. Both are
    optional.
    """

    norm1: Any
    token_mixer: Any  # may have `boundary_layers()`
    norm2: Any
    mlp: Any  # has `fc1` and `fc2`

    def __init__(
        self,
        dim: int,
        mixer: Layer,
        mlp: Layer,
        norm_layer: Layer,
        branch_scale: str = "none",
        drop_path: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if branch_scale not in BRANCH_SCALES:
            raise ValueError(
                f"branch_scale is {branch_scale!r}, allowed: {', '.join(BRANCH_SCALES)}"
            )
        factory: dict[str, Any] = {"device": device, "dtype": dtype}

        def scale(kind: str, init: float) -> nn.Module:
            used = branch_scale == kind
            return ChannelScale(dim, init, **factory) if used else nn.Identity()

        self.norm1 = norm_layer(dim, **factory)
        self.token_mixer = mixer(dim, **factory)
        self.layer_scale1 = scale("layer_scale", LAYER_SCALE_INIT)
        self.res_scale1 = scale("res_scale", 1.0)
        self.drop_path1 = DropPath(drop_path) if drop_path else nn.Identity()
        self.norm2 = norm_layer(dim, **factory)
        self.mlp = mlp(dim, **factory)
        self.layer_scale2 = scale("layer_scale", LAYER_SCALE_INIT)
        self.res_scale2 = scale("res_scale", 1.0)
        self.drop_path2 = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        mixed = self.token_mixer(self.norm1(x))
        x = self.res_scale1(x) + self.drop_path1(self.layer_scale1(mixed))
        return self.res_scale2(x) + self.drop_path2(self.layer_scale2(self.mlp(self.norm2(x))))

    def reparameterize(self) -> None:
        """Folds norms and LayerScale into the adjacent layers, for inference."""
        # Not every mixer begins and ends with linear layers, such as a pooling.
        if hasattr(self.token_mixer, "boundary_layers"):
            readers, writer = self.token_mixer.boundary_layers()
            fold_norm(self.norm1, *readers)
            self.layer_scale1 = fold_scale(self.layer_scale1, writer)
        fold_norm(self.norm2, self.mlp.fc1)
        self.layer_scale2 = fold_scale(self.layer_scale2, self.mlp.fc2)
