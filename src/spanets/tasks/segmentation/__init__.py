"""Semantic segmentation: training, metrics, evaluation, and the pictures of a run."""
