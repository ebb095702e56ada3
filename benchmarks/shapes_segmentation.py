"""Semantic FPN from scratch on generated shapes: SPANet-nano and a peer by the same recipe.

    python benchmarks/shapes_segmentation.py [--models spanet_nano resnet18] [--recorded]

Draws the images, trains on 240 of them and measures the last epoch's weights on the other 60: no
epoch is chosen on the images that are measured. A run that is on record in --runs is not run again.
"""

from shapes_runs import main

if __name__ == "__main__":
    main("shapes_segmentation", "shapes_semantic_fpn", ["iou"])
