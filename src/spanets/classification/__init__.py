"""Image classification: recipe keys, data, training steps, metrics, evaluation, prediction."""
