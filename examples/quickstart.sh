#!/bin/sh
# Trains on the ELPV solar cells, evaluates, and predicts three images of the evaluation part.
#   sh examples/quickstart.sh [RUN_FOLDER]
set -eu
run=${1:-runs/quickstart}
python=${PYTHON:-python}
start=$(date +%s)

if [ -e "$run/recipe.yaml" ] && [ ! -e "$run/results.json" ]; then
    echo "== resuming the run in $run"
    "$python" -m spanets_cli train elpv --out "$run" --resume
elif [ ! -e "$run/results.json" ]; then
    echo "== training the elpv recipe into $run"
    "$python" -m spanets_cli train elpv --out "$run"
fi

echo
echo "== evaluating"
"$python" -m spanets_cli eval "$run/last.ckpt"

echo
echo "== predicting three cells of the evaluation part"
"$python" examples/elpv_cells.py "$run/cells" 3
"$python" -m spanets_cli predict "$run/last.ckpt" "$run"/cells/*.png

echo
echo "== done in $(($(date +%s) - start)) s; all files are in $run:"
ls "$run"
