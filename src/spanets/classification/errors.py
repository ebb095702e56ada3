"""Writes the page of a classifier's mistakes, and a table of all its answers.

The page is one HTML file without scripts and without references to other files or addresses.
"""

import base64
import csv
import html
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps

from spanets.classification.answers import Answers, reliability
from spanets.classification.report import plot_reliability
from spanets.data.samples import Samples
from spanets.data.sources.folder import names_in
from spanets_runtime.errors import UserError, require
from spanets_runtime.files import check_place, write_atomically
from spanets_runtime.images import load_image
from spanets_runtime.text import escape_controls

PAGE, TABLE, DIAGRAM = "errors.html", "answers.csv", "reliability.png"

HEADER = ("path", "truth", "predicted", "probability", "probability_of_truth", "margin")

SHOWN = 40
"""Largest number of pictures of mistakes, and of uncertain images."""

CONFUSIONS, EXAMPLES = 10, 4

_SIDE = 128  # of a picture, in pixels
_MOST_BYTES = 2_400_000  # of all pictures; the page stays below 3 MB

_MARK = b"<!DOCTYPE html><!-- spanets eval --errors -->"

_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 72em; padding: 0 1em; }
figure { display: inline-block; width: 140px; margin: 0 8px 12px 0; vertical-align: top; }
figure img, figure .none { width: 128px; height: 128px; object-fit: contain; background: #eee; }
figcaption { font-size: 12px; overflow-wrap: anywhere; }
.none { display: flex; align-items: center; justify-content: center; font-size: 12px; }
.wrong { color: #b00020; } .right { color: #00662a; }
h2 { border-top: 1px solid #ccc; padding-top: .8em; }
@media print { body { margin: 0; } figure { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""


def check_errors(out: Path) -> None:
    """Checks before the evaluation that the files can be written.

    Raises:
        UserError: they cannot, another file is in the way, or matplotlib is missing.
    """
    require("matplotlib", "train")
    if out.exists() and not out.is_dir():
        raise UserError(f"--errors {out}: is a file; name a folder")
    for name in (PAGE, TABLE, DIAGRAM):
        check_place(out / name)
    beginnings = {PAGE: _MARK, TABLE: ",".join(HEADER).encode()}
    for name, beginning in beginnings.items():
        if (out / name).is_file():
            with (out / name).open("rb") as file:
                if file.read(len(beginning)) != beginning:
                    raise UserError(
                        f"{out / name}: already exists, and `spanets eval` did not write it; move "
                        "it, or name another folder with --errors"
                    )


def name_images(images: Sequence[Any], root: str | None) -> list[str]:
    """Returns the path of each image relative to the data set, or its name in a larger file."""
    paths = [image for image in images if isinstance(image, str | os.PathLike)]
    if len(paths) < len(images):
        return [str(getattr(image, "key", image)) for image in images]
    if root is not None and os.path.isdir(os.path.expanduser(root)):
        return names_in(root, paths)
    above = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [os.path.relpath(path, above).replace(os.sep, "/") for path in paths]


def save_errors(
    out: Path, samples: Samples, answers: Answers, names: Sequence[str], results: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes the page, the table and the reliability diagram.

    Args:
        out: The folder.
        samples: The N images that were measured.
        answers: The N answers.
        names: The N paths for the table and the captions.
        results: The results of `evaluate`.

    Returns:
        The paths, by "page", "table" and "diagram", and the number of "wrong" images.

    Raises:
        UserError: a file cannot be written.
    """
    plot_reliability(reliability(answers), out / DIAGRAM)
    _save_table(out / TABLE, samples.classes, answers, names)
    page = _Page(samples, answers, names)
    content = page.render(results, (out / DIAGRAM).read_bytes())
    write_atomically(out / PAGE, lambda file: file.write(content))
    return {
        "page": str(out / PAGE),
        "table": str(out / TABLE),
        "diagram": str(out / DIAGRAM),
        "wrong": int((~answers.right).sum()),
    }


def _save_table(path: Path, classes: Sequence[str], answers: Answers, names: Sequence[str]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for i, name in enumerate(names):
        numbers = (answers.confidence[i], answers.of_truth[i], answers.margin[i])
        labels = classes[answers.truth[i]], classes[answers.predicted[i]]
        writer.writerow([name, *labels, *(f"{number:.6f}" for number in numbers)])
    content = text.getvalue().encode("utf-8", "surrogateescape")
    write_atomically(path, lambda file: file.write(content))


def most_confused(answers: Answers, classes: int) -> list[tuple[int, int, int]]:
    """Returns truth, answer and number of images of the most frequent confusions."""
    wrong = ~answers.right
    pairs = answers.truth[wrong] * classes + answers.predicted[wrong]
    found, counts = np.unique(pairs, return_counts=True)
    order = np.lexsort((found, -counts))[:CONFUSIONS]
    return [(*divmod(int(found[i]), classes), int(counts[i])) for i in order]


class _Page:
    """The page of mistakes."""

    def __init__(self, samples: Samples, answers: Answers, names: Sequence[str]) -> None:
        self.samples, self.answers, self.names = samples, answers, names
        self.left = _MOST_BYTES
        self.left_out = 0

    def render(self, results: Mapping[str, Any], diagram: bytes) -> bytes:
        """Returns the page as UTF-8."""
        answers = self.answers
        wrong = np.flatnonzero(~answers.right)
        confident = wrong[np.argsort(-answers.confidence[wrong], kind="stable")][:SHOWN]
        uncertain = np.argsort(answers.margin, kind="stable")[:SHOWN]
        pictures = [
            *self._confusions(),
            f"<h2>The most confident mistakes ({len(confident)} of {len(wrong)})</h2>",
            *self._figures(confident),
            f"<h2>The least certain images ({len(uncertain)} of {len(answers)})</h2>",
            "<p>Right or wrong, by the difference of the two largest probabilities.</p>",
            *self._figures(uncertain),
        ]
        note = f"<p>{self.left_out} pictures left out to keep the page small.</p>"
        body = [*self._head(results, diagram), *pictures, *([note] if self.left_out else [])]
        head = (
            '<html lang="en"><head><meta charset="utf-8">'
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
            "img-src data:; style-src 'unsafe-inline'\">"
            f"<title>Mistakes of {_text(results['checkpoint'])}</title>"
            f"<style>{_STYLE}</style></head>"
        )
        return _MARK + "\n".join([head, "<body>", *body, "</body></html>\n"]).encode()

    def _head(self, results: Mapping[str, Any], diagram: bytes) -> list[str]:
        count, wrong = len(self.answers), int((~self.answers.right).sum())
        ece = results["metrics"]["ece"]
        shown = "undefined" if ece is None else f"{ece:.4f}"
        return [
            f"<h1>Mistakes of {_text(results['checkpoint'])}</h1>",
            f"<p>{wrong} of {count} images of {_text(results['data'])} are answered wrong "
            f"(accuracy {1 - wrong / count:.4f}). {_text(TABLE)} lists all images.</p>",
            *([f"<p>{_text(results['tta'])}</p>"] if "tta" in results else []),
            f'<p><img alt="reliability diagram" width="420" src="{_data_uri(diagram, "png")}"></p>',
            f"<p>Expected calibration error {shown}.</p>",
        ]

    def _confusions(self) -> Iterable[str]:
        classes = self.samples.classes
        rows = most_confused(self.answers, len(classes))
        yield "<h2>The most frequent confusions</h2>"
        if not rows:
            yield "<p>None: all images are answered right.</p>"
        for truth, predicted, count in rows:
            images = int((self.answers.truth == truth).sum())
            yield (
                f"<h3>{_text(classes[truth])} taken for {_text(classes[predicted])}: {count} of "
                f"{images} images</h3>"
            )
            found = np.flatnonzero(
                (self.answers.truth == truth) & (self.answers.predicted == predicted)
            )
            order = np.argsort(-self.answers.confidence[found], kind="stable")
            yield from self._figures(found[order][:EXAMPLES])

    def _figures(self, rows: NDArray[Any]) -> Iterable[str]:
        for row in rows.tolist():
            answers, classes = self.answers, self.samples.classes
            truth, predicted = (_text(classes[v[row]]) for v in (answers.truth, answers.predicted))
            kind = "right" if answers.right[row] else "wrong"
            name = _text(self.names[row])
            short = _text(self.names[row].rsplit("/", 1)[-1])
            yield (
                f'<figure title="{name}">{self._picture(row)}<figcaption>{short}<br>'
                f"{truth} ({answers.of_truth[row]:.3f})<br>"
                f'<span class="{kind}">&rarr; {predicted} ({answers.confidence[row]:.3f})</span>'
                "</figcaption></figure>"
            )

    def _picture(self, row: int) -> str:
        try:
            image = ImageOps.contain(load_image(self.samples.images[row]), (_SIDE, _SIDE))
        except UserError:
            return '<div class="none">cannot be read</div>'
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=75)
        uri = _data_uri(buffer.getvalue(), "jpeg")
        if len(uri) > self.left:
            self.left_out += 1
            return '<div class="none">left out</div>'
        self.left -= len(uri)
        return f'<img alt="" src="{uri}">'


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _text(value: object) -> str:
    return html.escape(escape_controls(str(value)))
