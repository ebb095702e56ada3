"""Draws published accuracy against cost: SPANet's Figure 5, with SPANetV2.

    python examples/paper_accuracy.py [--out docs/figures/accuracy]

ImageNet-1K top-1 at 224², as the papers report it (SPANet, Table 2; SPANetV2's tables). Nothing is
measured here.
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from spanets.analysis.plots import save_figure
from spanets.bench.paper_accuracy import IMAGENET_TOP1

# By family: parameters (M), operations (G, as each paper counts them).
COSTS = {
    "SPANet": {
        "spanet_small": (28.7, 4.6),
        "spanet_medium": (41.8, 6.8),
        "spanet_mediumx": (54.9, 9.0),
        "spanet_base": (75.9, 12.0),
        "spanet_basex": (99.8, 15.8),
    },
    "SPANetV2 pure": {
        "spanetv2_s18_pure": (29, 4.2),
        "spanetv2_s36_pure": (44, 8.1),
        "spanetv2_m36_pure": (61, 13.7),
        "spanetv2_b36_pure": (100, 24.3),
    },
    "SPANetV2 hybrid": {
        "spanetv2_s18_hybrid": (27, 4.2),
        "spanetv2_s36_hybrid": (41, 8.1),
        "spanetv2_m36_hybrid": (58, 13.6),
        "spanetv2_b36_hybrid": (100, 23.9),
    },
}

# The same with top-1 (%), of the peers in SPANet's Table 2.
PEERS = {
    "ConvNeXt": [(29, 4.5, 82.1), (50, 8.7, 83.1), (89, 15.4, 83.8)],
    "Swin": [(29, 4.5, 81.3), (50, 8.7, 83.0), (88, 15.4, 83.5)],
    "FocalNet": [(29, 4.5, 82.3), (50, 8.7, 83.5), (89, 15.4, 83.9)],
    "LITv2": [(28, 3.7, 82.0), (49, 7.5, 83.3), (87, 13.2, 83.6)],
    "GFNet-H": [(32, 4.6, 81.5), (54, 8.6, 82.9)],
    "DWNet": [(24, 3.8, 81.2), (74, 12.9, 83.2)],
    "PoolFormer": [(21, 3.4, 80.3), (56, 8.8, 82.1), (73, 11.6, 82.5)],
    "ResNet-50 (RSB)": [(26, 4.1, 79.8)],
    "PVT-Small": [(25, 3.8, 79.8)],
    "ViT-B/16": [(86, 17.6, 79.7)],
}


def main() -> None:
    """Draws the picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("docs/figures/accuracy"))
    arguments = parser.parse_args()
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    ours = {
        family: [(*cost, IMAGENET_TOP1[name]) for name, cost in rows.items()]
        for family, rows in COSTS.items()
    }
    for number, (family, rows) in enumerate({**ours, **PEERS}.items()):
        thick = family in ours
        style = {"marker": "o" if thick else "s", "ms": 5 if thick else 3, "lw": 2 if thick else 1}
        style["color"] = f"C{number}" if number < 10 else f"{0.2 * (number - 9)}"
        parameters, operations, accuracy = zip(*rows, strict=True)
        for cell, cost in zip(axes, (operations, parameters), strict=True):
            cell.plot(cost, accuracy, label=family, **style)
    axes[0].set(xlabel="operations (G)", ylabel="ImageNet-1K top-1 (%), as published")
    axes[1].set(xlabel="parameters (M)")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    save_figure(figure, arguments.out)


if __name__ == "__main__":
    main()
