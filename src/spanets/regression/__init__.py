"""Numbers from images: recipe keys, data, training steps, metrics, evaluation, prediction."""
