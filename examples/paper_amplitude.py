"""Relative log amplitude of several models side by side: SPANet's Figure 2, SPANetV2's likewise.

    python examples/paper_amplitude.py [MODEL…] [--sites mixers] [--images DIR] [--out FILE]

Models are those of `spanets analyze`: timm's names, with random weights, and checkpoints; --sites
mixers is SPANet's figure, blocks SPANetV2's. Without --images the solar cells of ELPV's evaluation
part are used.
"""

import argparse
from pathlib import Path
from typing import Any

from spanets.analysis import SpectrumStatistics, stream
from spanets.analysis.plots import plot_families, save_figure
from spanets.analysis.study.figures import title
from spanets.analysis.study.sources import batches, load_any, spread_evenly
from spanets.data.sources.elpv import elpv_splits
from spanets_runtime.listing import find_images

MODELS = ("convnext_tiny", "poolformer_s12", "swin_tiny_patch4_window7_224", "spanet_small")


def main() -> None:
    """Draws the picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--sites", nargs="+", default=["mixers"], help="(default: mixers)")
    parser.add_argument("--images", type=Path, help="(default: ELPV)")
    parser.add_argument("--count", type=int, default=32, help="of images (default: 32)")
    parser.add_argument("--size", type=int, help="of images (default: each model's own)")
    parser.add_argument("--out", type=Path, default=Path("docs/figures/amplitude"))
    arguments = parser.parse_args()
    found = elpv_splits()["val"].images if arguments.images is None else None
    paths = spread_evenly(found or find_images(arguments.images), arguments.count)
    table: dict[str, Any] = {}
    for name in arguments.models:
        model, preprocess, classes = load_any(name, arguments.size)
        statistics = SpectrumStatistics()
        loaded = (images for _, images in batches(paths, preprocess, 8))
        stream(model, loaded, statistics, arguments.sites)
        state = "untrained" if classes is None else "trained"
        table[f"{title(name)}, {state}"] = statistics.results()
    save_figure(plot_families(table), arguments.out)


if __name__ == "__main__":
    main()
