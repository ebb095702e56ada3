#!/bin/sh
# Trains on the ELPV solar cells and evaluates, shows a right and a wrong answer, and names the page
# of the run and what to do next.
#   sh examples/quickstart.sh [RUN_FOLDER]
set -eu
run=${1:-runs/quickstart}
python=${PYTHON:-python}
start=$(date +%s)

if [ -e "$run/recipe.yaml" ] && [ ! -e "$run/results.json" ]; then
    echo "== resuming the run in $run"
    "$python" -m spanets_cli train elpv --out "$run" --resume
elif [ ! -e "$run/results.json" ]; then
    echo "== training the elpv recipe into $run, and evaluating it"
    "$python" -m spanets_cli train elpv --out "$run"
else
    echo "== $run is trained already; writing its page"
    "$python" -m spanets_cli report "$run"
fi

echo
echo "== a right and a wrong answer"
"$python" examples/elpv_cells.py "$run/last.ckpt" "$run/cells"

case $python in */*) spanets=$(dirname "$python")/spanets ;; *) spanets=spanets ;; esac
echo
echo "== done in $(($(date +%s) - start)) s; open the page of the run in a browser:"
echo "   $run/report.html"
echo "and go on with:"
echo "   $spanets eval $run/last.ckpt --errors $run/errors            # all mistakes, as a page"
echo "   $spanets explain $run/last.ckpt $run/cells --out $run/cells  # what the model looked at"
echo "   $spanets export $run/last.ckpt --out $run/model.onnx         # run it without PyTorch"
