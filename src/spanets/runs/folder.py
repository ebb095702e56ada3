"""The files of a run folder; `spanets.tasks.engine` says what each of them holds."""

RECIPE = "recipe.yaml"
RECORD = "environment.json"
HISTORY = "metrics.csv"
RESULTS = "results.json"

LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"
BEST = "best.ckpt"
INTERRUPTED = "interrupted.ckpt"
