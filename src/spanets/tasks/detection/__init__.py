"""Object detection and instance segmentation: training, metrics, evaluation."""
