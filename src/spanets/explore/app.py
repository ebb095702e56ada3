"""Lays out the panels as a page with gradio; computes nothing itself."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from spanets.explore.page import LIMITS, LIVE, LONG, Choice, Filling, Page, Update
from spanets.explore.tabs import TABS
from spanets.explore.workbench import Workbench

# Fonts of the system, so that none is fetched.
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


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
        active = gr.State("look" if page.words else "detect")
        with gr.Tabs(selected=active.value):
            for name, lay_out in TABS.items():
                with gr.Tab(name.capitalize(), id=name) as tab:
                    lay_out(page, choice, tab)
        blocks.load(page.loaded[0], page.loaded[1], page.loaded[2], **LIVE)
        for update in page.updates:
            _follow(blocks, active, choice, update)
    return blocks


def _follow(blocks: gr.Blocks, active: gr.State, choice: Choice, update: Update) -> None:
    tab, inputs, quick, long = update

    def bound(filling: Filling) -> dict[str, Any]:
        fn, outputs = filling

        def if_active(name: str, *values: Any) -> Iterator[Any]:
            if name != tab.id:
                yield [gr.skip()] * len(outputs) if len(outputs) > 1 else gr.skip()
                return
            yield from fn(*values)

        limits = LIMITS if filling is quick else LONG
        given = {"fn": if_active, "inputs": [active, *inputs], "outputs": outputs}
        return {**given, **limits, "trigger_mode": "always_last", "show_progress": "minimal"}

    triggers = [choice.image.change, choice.first.change, choice.second.change]
    if tab.id == active.value:
        triggers.append(blocks.load)
    started = gr.on(triggers, **bound(quick))
    opened = tab.select(lambda: tab.id, None, active, api_visibility="private")
    opened = opened.then(**bound(quick))
    if long is not None:
        for event in (started, opened):
            event.then(**bound(long))
