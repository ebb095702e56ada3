"""The files of a run folder; `spanets.training.engine` says what each of them holds."""

RECIPE = "recipe.yaml"
RECORD = "environment.json"
HISTORY = "metrics.csv"
RESULTS = "results.json"
SPLIT = "split.csv"

LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"
BEST = "best.ckpt"
INTERRUPTED = "interrupted.ckpt"
DAMAGED = "damaged.ckpt"

DIVERGED = "diverged.safetensors"
UNREADABLE = "unreadable.csv"

PICTURES = ("learning_curve.png", "confusion_matrix.png", "examples.png")

FILES = (
    *(RECIPE, RECORD, HISTORY, RESULTS),
    *(LAST, PREVIOUS, BEST, INTERRUPTED, DAMAGED),
    *(DIVERGED, UNREADABLE, SPLIT),
    *PICTURES,
)
"""All that a run writes beside its logger's folder; of another's, a run replaces none."""
