"""Small sets of images: coloured squares with tags, and images of a brightness."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = ("red", "green", "blue")


def draw_square(colours: tuple[str, ...], seed: int, size: int = 32) -> Image.Image:
    """Draws a square of each colour, one beside the other, over dark noise."""
    noise = np.random.default_rng(seed)
    pixels = noise.integers(0, 60, (size, size, 3), dtype=np.uint8)
    for place, colour in enumerate(colours):
        left = 2 + place * (size // 3)
        pixels[8 : size - 8, left : left + 7, COLOURS.index(colour)] = 255
    return Image.fromarray(pixels)


def choose_colours(seed: int) -> tuple[str, ...]:
    """Chooses none to three colours: each number of three bits in turn."""
    return tuple(colour for bit, colour in enumerate(COLOURS) if seed >> bit & 1)


def make_tags(root: Path, count: int = 64, separator: str = "|") -> Path:
    """Makes images with tags, and a table of them; returns the table."""
    root.mkdir(parents=True, exist_ok=True)
    lines = ["file,tags"]
    for seed in range(count):
        colours = choose_colours(seed)
        draw_square(colours, seed).save(root / f"{seed}.png")
        lines.append(f"{seed}.png,{separator.join(colours)}")
    return write_table(root / "labels.csv", lines)


def make_brightness(root: Path, count: int = 64) -> Path:
    """Makes gray images, and a table of their mean brightness and its double; returns the table."""
    root.mkdir(parents=True, exist_ok=True)
    lines = ["file,brightness,double"]
    for seed in range(count):
        noise = np.random.default_rng(seed)
        level = 20 + 200 * seed / count
        pixels = np.clip(noise.normal(level, 10, (32, 32, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{seed}.png")
        mean = pixels.mean()
        lines.append(f"{seed}.png,{mean:.4f},{1000 + 2 * mean:.4f}")
    return write_table(root / "labels.csv", lines)


def write_table(path: Path, lines: list[str]) -> Path:
    """Writes the lines of a table; returns its path."""
    path.write_text("\n".join(lines) + "\n")
    return path
