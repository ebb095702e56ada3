"""Draws the relative log amplitude of several models: Figure 2 of SPANet, and of SPANetV2.

    python examples/paper_amplitude.py [MODEL…] [--sites mixers] [--images DIR] [--out FILE]

MODEL is a timm name (random weights) or a checkpoint, as for `spanets analyze`. --sites mixers
gives SPANet's figure, --sites blocks that of SPANetV2. The default images are the solar cells of
ELPV's evaluation part.
"""

import argparse
from pathlib import Path
from typing import Any

from spanets.analysis import SpectrumStatistics, stream
from spanets.analysis.plots import plot_families, save_figure
from spanets.analysis.study.figures import make_titles
from spanets.analysis.study.inputs import batches, open_network
from spanets.data.sources.elpv import elpv_splits
from spanets_runtime.listing import images_below, spread_evenly

MODELS = ("convnext_tiny", "poolformer_s12", "swin_tiny_patch4_window7_224", "spanet_small")


def main() -> None:
    """Draws the picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--sites", nargs="+", default=["mixers"], help="(default: mixers)")
    parser.add_argument("--images", type=Path, help="(default: ELPV)")
    parser.add_argument("--count", type=int, default=32, help="number of images (default: 32)")
    parser.add_argument("--size", type=int, help="image side (default: each model's own)")
    parser.add_argument("--out", type=Path, default=Path("docs/figures/amplitude"))
    arguments = parser.parse_args()
    found = elpv_splits()["val"].images if arguments.images is None else None
    paths = spread_evenly(found or images_below(arguments.images).images, arguments.count)
    table: dict[str, Any] = {}
    titles = make_titles(arguments.models)
    for name in arguments.models:
        source, preprocess = open_network(name, arguments.size)
        statistics = SpectrumStatistics()
        loaded = (images for _, images in batches(paths, preprocess, 8))
        stream(source.network, loaded, statistics, arguments.sites)
        state = "trained" if source.has_weights else "untrained"
        table[f"{titles[name]}, {state}"] = statistics.results()
    save_figure(plot_families(table), arguments.out)


if __name__ == "__main__":
    main()
