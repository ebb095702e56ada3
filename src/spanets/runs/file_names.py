"""Names of the files in a run folder; `spanets.training.engine` describes each of them."""

RECIPE = "recipe.yaml"
RECORD = "environment.json"
HISTORY = "metrics.csv"
RESULTS = "results.json"
SPLIT = "split.csv"

# In the folder of all folds of a cross-validation, which has a run folder for each.
FOLD_LIST = "folds.csv"
FOLD_RESULTS = "folds.json"
FOLD_RECIPE = "folds.yaml"

LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"
BEST = "best.ckpt"
INTERRUPTED = "interrupted.ckpt"
DAMAGED = "damaged.ckpt"

DIVERGED = "diverged.safetensors"
UNREADABLE = "unreadable.csv"

REPORT = "report.html"

PICTURES = ("learning_curve.png", "confusion_matrix.png", "examples.png", "scatter.png")

FILES = (
    *(RECIPE, RECORD, HISTORY, RESULTS),
    *(LAST, PREVIOUS, BEST, INTERRUPTED, DAMAGED),
    *(DIVERGED, UNREADABLE, SPLIT, REPORT),
    *(FOLD_LIST, FOLD_RESULTS, FOLD_RECIPE),
    *PICTURES,
)
"""All files that a run writes, except its logger's; a run never replaces a foreign one."""
