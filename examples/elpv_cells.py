"""Shows a right and a wrong answer of a model to ELPV's evaluation cells, with their probabilities.

python examples/elpv_cells.py CHECKPOINT FOLDER

The most confident ones of some cells are copied into the folder. A wrong answer is shown on
purpose: no model is always right, and this one says how sure it was.
"""

import shutil
import sys
from pathlib import Path

import spanets
from spanets.data.sources.elpv import elpv_splits

STEP = 8
"""Every so many of the 656 evaluation cells are predicted, which takes seconds."""


def main(checkpoint: str, folder: str) -> None:
    """Predicts cells, and copies and prints the most confident right and wrong ones."""
    cells = elpv_splits()["val"]
    chosen = cells.subset(range(0, len(cells), STEP))
    rows = list(spanets.predict_table(checkpoint, map(str, chosen.images), top=1))
    answers = zip(rows, chosen.images, chosen.labels, strict=True)
    by_kind: dict[str, list] = {"right": [], "wrong": []}
    for row, image, label in answers:
        kind = "right" if row["label_1"] == chosen.classes[label] else "wrong"
        by_kind[kind].append((row["probability_1"], row["label_1"], label, image))
    Path(folder).mkdir(parents=True, exist_ok=True)
    for kind, found in by_kind.items():
        if not found:
            print(f"{kind}: none of {len(rows)} cells")
            continue
        probability, answer, label, image = max(found, key=lambda one: one[0])
        copy = Path(folder, f"{kind}{image.suffix}")
        shutil.copy(image, copy)
        truth = chosen.classes[label]
        print(f"{kind}: {copy} is {truth}; the answer is {answer}, probability {probability:.3f}")
    print(
        f"These are the most confident of {len(by_kind['right'])} right and "
        f"{len(by_kind['wrong'])} wrong answers to {len(rows)} cells."
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
