"""Lays out the panels as a page with gradio; computes nothing itself."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from spanets.explore.page import LIMITS, LIVE, LONG, Choice, Filling, Page, Update
from spanets.explore.tabs import TABS
from spanets.explore.workbench import Workbench

# Fonts of the system, so that none is fetched.
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


@dataclass
class Visit:
    """What one open page shows.

    Attributes:
        tab: The open tab.
        filled: Image and models that were computed last, by tab and whether it is the long part.
    """

    tab: str
    filled: dict[tuple[str, bool], list[Any]] = field(default_factory=dict)

    def begin(self, tab: str, is_long: bool, chosen: list[Any]) -> bool:
        """Notes that a part of a tab is computed; returns False if it shows these already."""
        if tab != self.tab or self.filled.get((tab, is_long)) == chosen:
            return False
        self.filled[tab, is_long] = chosen
        if not is_long:  # it empties the places of the long part
            self.filled.pop((tab, True), None)
        return True

    def fill(
        self, tab: str, is_long: bool, chosen: list[Any], show: Callable[[], Any], same: Any
    ) -> Iterator[Any]:
        """Yields what fills a part of a tab, or `same` where the part stays as it is.

        While the long part is computed, the quick one may go on to another image.
        """
        if not self.begin(tab, is_long, chosen):
            yield same
            return
        for shown in show():
            yield shown if self.filled.get((tab, False)) == chosen else same


def make_page(bench: Workbench, samples: Sequence[Path], folder: Path) -> gr.Blocks:
    """Returns the page.

    Args:
        bench: Models and images.
        samples: Images to choose from if there is no folder.
        folder: Folder of uploads.
    """
    page = Page(bench, samples, folder)
    with gr.Blocks(title="spanets explore", analytics_enabled=False, fill_width=True) as blocks:
        gr.Markdown("## What networks do to images and their frequencies")
        choice = page.choose()
        start = "look" if page.words else "detect"
        visit = gr.State(Visit(start))
        with gr.Tabs(selected=start):
            for name, lay_out in TABS.items():
                with gr.Tab(name.capitalize(), id=name) as tab:
                    lay_out(page, choice, tab)
        blocks.load(page.loaded[0], page.loaded[1], page.loaded[2], **LIVE)
        for update in page.updates:
            _follow(blocks, visit, choice, update)
    return blocks


def _follow(blocks: gr.Blocks, visit: gr.State, choice: Choice, update: Update) -> None:
    tab, inputs, quick, long = update
    chosen = [choice.image, choice.first, choice.second]

    def bound(filling: Filling, opens: bool = False) -> dict[str, Any]:
        fn, outputs = filling

        def fill(visit: Visit, image: str, first: str, second: str, *values: Any) -> Iterator[Any]:
            if opens:
                visit.tab = tab.id
            same = [gr.skip()] * len(outputs) if len(outputs) > 1 else gr.skip()
            chosen = [image, first, second]
            yield from visit.fill(tab.id, filling is long, chosen, lambda: fn(*values), same)

        limits = LIMITS if filling is quick else LONG
        given = {"fn": fill, "inputs": [visit, *chosen, *inputs], "outputs": outputs}
        return {**given, **limits, "trigger_mode": "always_last", "show_progress": "minimal"}

    triggers = [choice.image.change, choice.first.change, choice.second.change]
    if tab.id == visit.value.tab:  # it is selected too, but gradio does not promise that
        triggers.append(blocks.load)
    started = gr.on(triggers, **bound(quick))
    opened = tab.select(**bound(quick, opens=True))
    if long is not None:
        for event in (started, opened):
            event.then(**bound(long))
