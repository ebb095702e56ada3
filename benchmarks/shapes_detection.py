"""Trains Mask R-CNN from scratch on generated shapes: SPANet-nano and a peer, same recipe.

    python benchmarks/shapes_detection.py [--models spanet_nano resnet18] [--recorded]

Draws the images, trains on 240 of them, and evaluates the weights of the last epoch on the other
60, so no epoch is selected on the test images. Finished runs in --runs are not repeated.
"""

from shapes_runs import main

if __name__ == "__main__":
    main("shapes_detection", "shapes_mask_rcnn")
