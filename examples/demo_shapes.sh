#!/bin/sh
# Draws shapes or figures on photographs, trains on them from scratch, evaluates and predicts.
#   sh examples/demo_shapes.sh shapes_mask_rcnn|shapes_semantic_fpn RUN_FOLDER
#   sh examples/demo_shapes.sh figures_keypoint_rcnn RUN_FOLDER figures
set -eu
recipe=$1
run=$2
drawn=${3:-shapes}
python=${PYTHON:-python}
start=$(date +%s)

if [ ! -e "$run/$drawn" ]; then
    echo "== drawing images of $drawn into $run/$drawn"
    case $drawn in figures) kind=--figures ;; *) kind= ;; esac
    "$python" examples/shapes.py "$run/$drawn" $kind
fi

if [ -e "$run/recipe.yaml" ] && [ ! -e "$run/results.json" ]; then
    echo "== resuming the run in $run"
    "$python" -m spanets_cli train "$recipe" --data.root "$run/$drawn" --out "$run" --resume
elif [ ! -e "$run/results.json" ]; then
    echo "== training the $recipe recipe into $run"
    "$python" -m spanets_cli train "$recipe" --data.root "$run/$drawn" --out "$run"
fi

echo
echo "== evaluating on the validation images"
"$python" -m spanets_cli eval "$run/last.ckpt"

echo
echo "== predicting three of them"
"$python" -m spanets_cli predict "$run/last.ckpt" "$run/$drawn"/images/val/0000[0-2].png \
    --out "$run/predictions"

echo
echo "== done in $(($(date +%s) - start)) s; all files are in $run:"
ls "$run" "$run/predictions"
