"""Classifies solids in noisy volumes with SPAM for three dimensions.

    python examples/small_volume.py [--steps 100]

The volumes are generated: a ball, a cross of three bars, or a shell (a hollow ball) of varying
place and size, in noise. It takes under a minute on one core.
"""

import argparse

import torch
import torch.nn.functional as F
from timm.layers import GroupNorm1
from torch import Tensor, nn

from spanets.mixers import SPAM3d

CLASSES = ("ball", "cross", "shell")
SIDE = 16


def draw_volume(label: int, noise: torch.Generator) -> Tensor:
    """Draws one solid of density 1 in noise: (1, SIDE, SIDE, SIDE)."""
    radius = 3.5 + 2 * torch.rand((), generator=noise)
    centre = SIDE / 2 + 3 * (torch.rand(3, generator=noise) - 0.5)
    axes = torch.meshgrid(*[torch.arange(SIDE) - c for c in centre], indexing="ij")
    away = torch.stack(axes)  # 3 D H W
    distance = away.square().sum(0).sqrt()
    if label == 1:
        inside = ((away.abs() < 1.5).sum(0) >= 2) & (distance < 1.3 * radius)
    else:
        inside = (distance < radius) & ((distance > radius - 1.5) if label == 2 else True)
    return (inside + 0.4 * torch.randn(SIDE, SIDE, SIDE, generator=noise))[None]


def draw_batch(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draws volumes (count, 1, SIDE, SIDE, SIDE) and their classes (count,)."""
    noise = torch.Generator().manual_seed(seed)
    labels = torch.randint(len(CLASSES), (count,), generator=noise)
    return torch.stack([draw_volume(int(label), noise) for label in labels]), labels


class Block(nn.Module):
    """SPANet's block in three dimensions: norm, SPAM, norm, MLP, each half with a shortcut."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.token_mixer = GroupNorm1(dim), SPAM3d(dim, kernel_size=5)
        self.norm2 = GroupNorm1(dim)
        self.mlp = nn.Sequential(nn.Conv3d(dim, 4 * dim, 1), nn.GELU(), nn.Conv3d(4 * dim, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, D, H, W) to the same shape."""
        x = x + self.token_mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def main() -> None:
    """Trains, and prints the accuracy on new volumes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100, help="training steps (100)")
    steps = parser.parse_args().steps
    torch.manual_seed(0)
    stem, down = nn.Conv3d(1, 12, 3, stride=2, padding=1), nn.Conv3d(12, 24, 3, stride=2, padding=1)
    pool = nn.Sequential(GroupNorm1(24), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    blocks = [Block(12), down, Block(24), Block(24)]
    network = nn.Sequential(stem, *blocks, pool, nn.Linear(24, len(CLASSES)))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    volumes, labels = draw_batch(512, seed=0)
    for _ in range(steps):
        chosen = torch.randint(len(volumes), (32,))
        loss = F.cross_entropy(network(volumes[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    volumes, labels = draw_batch(256, seed=1)
    with torch.inference_mode():
        right = (network(volumes).argmax(1) == labels).float().mean().item()
    most = labels.bincount().max().item() / len(labels)
    print(f"accuracy on {len(labels)} new volumes: {right:.1%} (largest class: {most:.1%})")


if __name__ == "__main__":
    main()
