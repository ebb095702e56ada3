"""What the tabs of the page share: the choice of image and models, errors in words, numbers."""

import json
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from spanets.explore.page_text import bars, error_line
from spanets.explore.panels import PANELS, PARTS, command_of
from spanets.explore.results import Shown, to_csv, to_json
from spanets.explore.workbench import Model, Settings, Workbench, decode_picture
from spanets_runtime.errors import UserError, missing_memory
from spanets_runtime.listing import spread_evenly

MOST_HEADS = 6
"""Number of sliders for λ; a SPANet has three heads."""

MOST_SAMPLES = 1000
"""Largest number of images of the folder to choose from."""

_SAVE = """(text) => {
  if (!text) return;
  const {name, kind, body} = JSON.parse(text);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([body], {type: kind}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""

# Quick computations run one after another, so that an older one never ends after a newer one and
# replaces what it shows. Long ones wait for each other apart from these, so that a slider never
# waits for them.
LIMITS: dict[str, Any] = {
    "concurrency_id": "live",
    "concurrency_limit": 1,
    "api_visibility": "private",
}
LONG: dict[str, Any] = {**LIMITS, "concurrency_id": "long"}
LIVE: dict[str, Any] = {**LIMITS, "trigger_mode": "always_last", "show_progress": "hidden"}
QUICK: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def uploaded_path(folder: Path, payload: Any) -> str:
    """Returns the path of an uploaded file.

    Args:
        folder: Folder of uploads.
        payload: What the browser sent, which is not trusted.

    Raises:
        UserError: a path that was typed instead.
    """
    path = payload.get("path") if isinstance(payload, dict) else None
    real = Path(path).resolve() if isinstance(path, str) and "\0" not in path else None
    if real is None or not real.is_relative_to(folder) or not real.is_file():
        raise UserError("only files that were uploaded here can be read")
    return str(real)


def attempt(show: Callable[[], Shown]) -> Shown | str:
    """Returns a panel's result, or one line that says why there is none."""
    try:
        return show()
    except UserError as error:
        return missing_memory(error) or str(error)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        full = missing_memory(error)
        return full or "this is a defect of the explorer; its traceback is in the terminal"


Filling = tuple[Callable[..., Any], list[Any]]
"""A generator that fills a part of a tab, and its outputs."""

Update = tuple[gr.Tab, list[Any], Filling, Filling | None]
"""A tab, the inputs of its generators, the quick one, and a long one that comes after it."""


def hide_folder(message: str, path: str) -> str:
    """Returns a message with an image's name in place of its path, which means nothing to users."""
    return message.replace(path, Path(path).name) if path else message


@dataclass
class Choice:
    """The inputs above all panels."""

    image: gr.State
    first: gr.Dropdown
    second: gr.Dropdown


class Page:
    """The page while it is laid out.

    Args:
        bench: Models and images.
        samples: Images to choose from if there is no folder.
        folder: Folder of uploads.
    """

    def __init__(self, bench: Workbench, samples: Sequence[Path], folder: Path) -> None:
        self.bench, self.folder = bench, folder
        found, root = list(samples), samples[0].parent if samples else folder
        if bench.folder is not None:
            found = spread_evenly(bench.listing.images, MOST_SAMPLES)
            root = bench.listing.folder
        self.samples = {str(path.relative_to(root)): str(path) for path in found}
        self.words = [word for word, model in bench.models.items() if model.is_image_level]
        self.dense = [word for word in bench.models if word not in self.words]
        self.updates: list[Update] = []

    # ---- what all panels share

    def choose(self) -> Choice:
        """Lays out the choice of an image and of models."""
        names = [*self.samples]
        start = self.samples.get(names[0], "") if names else ""
        image = gr.State(start)
        with gr.Row(equal_height=True):
            sources: Any = ["upload", "webcam", "clipboard"]
            upload = gr.Image(label="your image", sources=sources, height=190, elem_id="upload")
            shown = gr.Image(
                label="the image in use", height=190, interactive=False, buttons=[], format="jpeg"
            )
            with gr.Column():
                sample = gr.Dropdown(
                    names,
                    value=names[0] if names else None,
                    label="sample",
                    info=self.describe_samples(),
                )
                first = gr.Dropdown(
                    self.words, value=next(iter(self.words), None), label="model", elem_id="first"
                )
                second = gr.Dropdown(
                    ["none", *self.words], value="none", label="beside it", elem_id="second"
                )
        said = gr.HTML()

        def take(payload: Any) -> list[Any]:
            if not payload:  # emptied, by the user or because a sample was chosen
                return [gr.skip(), ""]
            try:
                return [uploaded_path(self.folder, payload), ""]
            except UserError as error:
                return [gr.skip(), error_line(str(error))]

        # Without gradio's preprocessing, which would decode the file: `load_image` has limits.
        # A picture of the webcam makes a "change", but no "input".
        upload.change(take, upload, [image, said], preprocess=False, **QUICK)
        # The drop-down shows which sample is in use then.
        upload.clear(
            lambda name: (self.samples.get(str(name), ""), ""), sample, [image, said], **QUICK
        )
        sample.input(
            # Emptying what is empty already would cost the browser a moment.
            lambda name, payload: (self.samples.get(str(name), ""), None if payload else gr.skip()),
            [sample, upload],
            [image, upload],
            preprocess=False,
            api_visibility="private",
        )
        image.change(self.preview, image, [shown, said], concurrency_limit=2, **QUICK)
        self.loaded = (self.preview, image, [shown, said])
        return Choice(image, first, second)

    def describe_samples(self) -> str | None:
        """Returns a line if the folder has more images than can be chosen from."""
        count = 0 if self.bench.folder is None else len(self.bench.listing.images)
        if count <= len(self.samples):
            return None
        return f"{len(self.samples)} of the folder's {count} images, evenly spread"

    def preview(self, path: str) -> tuple[Any, str]:
        """Returns a small picture of the image, or the reason why there is none."""
        result = attempt(lambda: Shown({"image": decode_picture(self.bench, path)}))
        if isinstance(result, str):
            return None, error_line(hide_folder(result, path))
        return result.pictures["image"], ""

    def show(self, panel: str, words: Sequence[str], settings: Settings) -> Shown | str:
        """Computes a panel, or a part of one; an error becomes a line."""
        chosen = [word for word in dict.fromkeys(words) if word and word != "none"]
        if not chosen:
            return "no model for this panel; start with spanets explore MODEL"
        show = PARTS[panel] if panel in PARTS else PANELS[panel].show
        result = attempt(lambda: show(self.bench, chosen, settings))
        return hide_folder(result, settings.image) if isinstance(result, str) else result

    def bars_of(self, shown: Shown, word: str | None = None) -> str:
        """Returns the answers as bars."""
        models = self.bench.models
        parts = []
        for title, answers in shown.answers.items():
            model: Model | None = models.get(word or title)
            are_shares = model is None or model.source.info.task != "regression"
            parts.append(bars(title, answers, are_shares))
        return "".join(parts)

    def numbers(
        self, panel: str, inputs: list[Any], read: Callable[..., tuple[list[str], Settings]]
    ) -> None:
        """Lays out the buttons that save a panel's numbers, and the command that makes the same.

        Args:
            panel: Name from `PANELS`.
            inputs: The panel's inputs.
            read: Returns models and settings from the inputs' values.
        """
        with gr.Row():
            as_json = gr.Button("numbers as JSON", size="sm")
            as_csv = gr.Button("numbers as CSV", size="sm")
            as_line = gr.Button("the command for this", size="sm")
        command = gr.Code(language="shell", visible=False, label="command")
        said = gr.HTML()
        text = gr.Textbox(visible="hidden", elem_id=f"numbers-{panel}")

        def save(kind: str, *values: Any) -> tuple[str, str]:
            words, settings = read(*values)
            shown = self.show(panel, words, settings)
            if isinstance(shown, str):
                return "", error_line(shown)
            line = self.command(panel, words, settings)
            body = to_json(shown, line) if kind == "json" else to_csv(shown)
            return _pack(f"{panel}.{kind}", kind, body), ""

        for button, kind in ((as_json, "json"), (as_csv, "csv")):
            fn = _bind(save, kind)
            done = button.click(fn, inputs, [text, said], **LONG)
            done.then(None, text, None, js=_SAVE)

        def tell(*values: Any) -> Any:
            return gr.Code(self.command(panel, *read(*values)), visible=True)

        as_line.click(tell, inputs, command, api_visibility="private")

    def command(self, panel: str, words: Sequence[str], settings: Settings) -> str:
        """Returns the command that makes the same as the page shows."""
        is_own = settings.image in self.samples.values()
        image = settings.image if is_own else Path(settings.image).name or "IMAGE"
        chosen = [word for word in dict.fromkeys(words) if word and word != "none"]
        return command_of(self.bench, panel, chosen, settings, image)

    def follow(
        self, tab: gr.Tab, inputs: list[Any], quick: Filling, long: Filling | None = None
    ) -> None:
        """Computes a panel when its tab is opened, and when the image or a model changes."""
        self.updates.append((tab, inputs, quick, long))


def _bind(function: Callable[..., Any], first: Any) -> Callable[..., Any]:
    def call(*values: Any) -> Any:
        return function(first, *values)

    return call


def _pack(name: str, kind: str, body: str) -> str:
    mime = {"json": "application/json", "csv": "text/csv"}[kind]
    return json.dumps({"name": name, "kind": mime, "body": body})
