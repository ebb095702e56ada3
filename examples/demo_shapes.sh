#!/bin/sh
# Draws shapes on photographs, trains on them from scratch, evaluates and predicts.
#   sh examples/demo_shapes.sh shapes_mask_rcnn|shapes_semantic_fpn RUN_FOLDER
set -eu
recipe=$1
run=$2
python=${PYTHON:-python}
start=$(date +%s)

if [ ! -e "$run/shapes" ]; then
    echo "== drawing 300 images of shapes into $run/shapes"
    "$python" examples/shapes.py "$run/shapes"
fi

if [ -e "$run/recipe.yaml" ] && [ ! -e "$run/results.json" ]; then
    echo "== resuming the run in $run"
    "$python" -m spanets_cli train "$recipe" --data.root "$run/shapes" --out "$run" --resume
elif [ ! -e "$run/results.json" ]; then
    echo "== training the $recipe recipe into $run"
    "$python" -m spanets_cli train "$recipe" --data.root "$run/shapes" --out "$run"
fi

echo
echo "== evaluating on the 60 validation images"
"$python" -m spanets_cli eval "$run/last.ckpt"

echo
echo "== predicting three of them"
"$python" -m spanets_cli predict "$run/last.ckpt" "$run"/shapes/images/val/0000[0-2].png \
    --out "$run/predictions"

echo
echo "== done in $(($(date +%s) - start)) s; all files are in $run:"
ls "$run" "$run/predictions"
