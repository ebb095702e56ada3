"""Draws spectrum maps of token mixers side by side: SPANet's Figure 1, for any models.

    python examples/paper_spectra.py [MODEL…] [--images DIR] [--out docs/figures/spectra]

For each model it shows the last token mixer on maps of the given side: its log amplitude, averaged
over channels and images. MODEL is a timm name (random weights) or a checkpoint, as for `spanets
analyze`. The default images are the solar cells of ELPV's evaluation part.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from spanets.analysis import SpectrumStatistics, stream
from spanets.analysis.plots import Array, plot_spectra, save_figure
from spanets.analysis.study.figures import make_titles
from spanets.analysis.study.inputs import batches, open_network
from spanets.data.sources.elpv import elpv_splits
from spanets_runtime.listing import images_below, spread_evenly

MODELS = (
    "convnext_tiny",
    "poolformer_s12",
    "swin_tiny_patch4_window7_224",
    "vit_tiny_patch16_224",
    "spanet_small",
)


def spectrum_of(
    model_name: str, title: str, paths: Sequence[Path], size: int, side: int
) -> tuple[str, Array]:
    """Returns title and spectrum (side, side) of the last mixer on maps of a given side."""
    source, preprocess = open_network(model_name, size)
    statistics = SpectrumStatistics()
    stream(source.network, (images for _, images in batches(paths, preprocess, 4)), statistics)
    name = [name for name, shape in statistics.sizes.items() if shape == (side, side)][-1]
    state = "trained" if source.has_weights else "untrained"
    return f"{title}\n{state}\n{name}", statistics.spectra[name].mean


def main() -> None:
    """Draws the picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--images", type=Path, help="(default: ELPV)")
    parser.add_argument("--count", type=int, default=8, help="number of images (default: 8)")
    parser.add_argument("--size", type=int, default=224, help="image side (default: 224)")
    parser.add_argument("--side", type=int, default=14, help="side of the maps (default: 14)")
    parser.add_argument("--out", type=Path, default=Path("docs/figures/spectra"))
    arguments = parser.parse_args()
    found = elpv_splits()["val"].images if arguments.images is None else None
    paths = spread_evenly(found or images_below(arguments.images).images, arguments.count)
    spectra = dict(
        spectrum_of(name, title, paths, arguments.size, arguments.side)
        for name, title in make_titles(arguments.models).items()
    )
    save_figure(plot_spectra(spectra, columns=4), arguments.out)


if __name__ == "__main__":
    main()
