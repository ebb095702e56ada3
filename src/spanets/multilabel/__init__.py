"""Several labels an image: recipe keys, data, training steps, metrics, evaluation, prediction."""
