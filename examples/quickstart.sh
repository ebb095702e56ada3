#!/bin/sh
# Trains on the ELPV solar cells, evaluates, and predicts three of the images it was not trained on.
#   sh examples/quickstart.sh [RUN_FOLDER]
set -eu
run=${1:-runs/quickstart}
python=${PYTHON:-python}
start=$(date +%s)

if [ -e "$run/recipe.yaml" ] && [ ! -e "$run/results.json" ]; then
    echo "== going on with the run that was stopped in $run"
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
echo "== done in $(($(date +%s) - start)) s; everything lies in $run:"
ls "$run"
