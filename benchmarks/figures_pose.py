"""Trains Keypoint R-CNN from scratch on generated figures: SPANet-nano and a peer, same recipe.

    python benchmarks/figures_pose.py [--models spanet_nano resnet18] [--recorded]

Draws the images, trains on 800 of them, and evaluates the weights of the last epoch on the other
200, so no epoch is selected on the test images. Finished runs in --runs are not repeated.
"""

from shapes_runs import main

from spanets.detection.figures import write_figures

if __name__ == "__main__":
    main("figures_pose", "figures_keypoint_rcnn", draw=write_figures)
