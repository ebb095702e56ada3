"""Classifies heartbeats with SPAM for signals of one dimension.

    python examples/ecg_like.py [--steps 150]

The signals are generated: beats of three bumps (P, QRS, T) in noise. The classes differ in rhythm
and in shape: regular; irregular without P, as in atrial fibrillation; with a raised ST segment. It
takes under a minute on one core.
"""

import argparse

import torch
import torch.nn.functional as F
from timm.layers import GroupNorm1
from torch import Tensor, nn

from spanets.mixers import SPAM1d

CLASSES = ("regular", "irregular, without P", "raised ST")
SAMPLES = 512

# Time from R (in beats), width (in beats) and height of each bump.
BUMPS = {"P": (-0.18, 0.025, 0.2), "QRS": (0.0, 0.012, 1.0), "ST": (0.12, 0.05, 0.0)}
BUMPS["T"] = (0.3, 0.05, 0.35)


def draw_signal(label: int, noise: torch.Generator) -> Tensor:
    """Draws some eight seconds of one class: (1, SAMPLES)."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=noise).item()

    heights = {name: height for name, (_, _, height) in BUMPS.items()}
    heights |= {"P": 0.0} if label == 1 else {}
    heights |= {"ST": 0.3} if label == 2 else {}
    time, beat, length = torch.arange(SAMPLES), uniform(-60, 0), uniform(45, 75)
    signal = 0.15 * torch.randn(SAMPLES, generator=noise)
    while beat < SAMPLES + 75:
        for name, (place, width, _) in BUMPS.items():
            away = (time - beat - place * length) / (width * length)
            signal += heights[name] * torch.exp(-(away**2) / 2)
        beat += length * (uniform(0.6, 1.4) if label == 1 else uniform(0.97, 1.03))
    return signal[None]


def draw_batch(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draws signals (count, 1, SAMPLES) and their classes (count,)."""
    noise = torch.Generator().manual_seed(seed)
    labels = torch.randint(len(CLASSES), (count,), generator=noise)
    return torch.stack([draw_signal(int(label), noise) for label in labels]), labels


class Block(nn.Module):
    """SPANet's block in one dimension: norm, SPAM, norm, MLP, each half with a shortcut."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.token_mixer = GroupNorm1(dim), SPAM1d(dim)
        self.norm2 = GroupNorm1(dim)
        self.mlp = nn.Sequential(nn.Conv1d(dim, 4 * dim, 1), nn.GELU(), nn.Conv1d(4 * dim, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, W) to the same shape."""
        x = x + self.token_mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def main() -> None:
    """Trains, and prints the accuracy on new signals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150, help="training steps (150)")
    steps = parser.parse_args().steps
    torch.manual_seed(0)
    stem, down = nn.Conv1d(1, 16, 7, stride=4, padding=3), nn.Conv1d(16, 32, 3, stride=2, padding=1)
    pool = nn.Sequential(GroupNorm1(32), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    blocks = [Block(16), down, Block(32), Block(32)]
    network = nn.Sequential(stem, *blocks, pool, nn.Linear(32, len(CLASSES)))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    signals, labels = draw_batch(512, seed=0)
    for _ in range(steps):
        chosen = torch.randint(len(signals), (32,))
        loss = F.cross_entropy(network(signals[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    signals, labels = draw_batch(256, seed=1)
    with torch.inference_mode():
        right = (network(signals).argmax(1) == labels).float().mean().item()
    most = labels.bincount().max().item() / len(labels)
    print(f"accuracy on {len(labels)} new signals: {right:.1%} (largest class: {most:.1%})")


if __name__ == "__main__":
    main()
