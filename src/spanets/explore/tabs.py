"""The panels of the page: inputs, outputs, and what runs when."""

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from spanets.explore.compare import MOST_MODELS
from spanets.explore.page import LIMITS, LIVE, LONG, MOST_HEADS, Choice, Page
from spanets.explore.page_text import error_line, heading, lines, table
from spanets.explore.results import Shown
from spanets.explore.twins import balanced_stages
from spanets.explore.workbench import Settings, track_with

PROGRESS = gr.Progress()  # gradio gives each call its own in place of it

TabMaker = Callable[[Page, Choice, gr.Tab], None]


def picture(label: str, is_drawing: bool = False) -> gr.Image:
    """Returns a place for a picture, with a title above it."""
    gr.HTML(heading(label))
    return gr.Image(
        alt_text=label,
        show_label=False,
        interactive=False,
        format="png" if is_drawing else "jpeg",
        buttons=["fullscreen"],
    )


# ---- Look


def look_tab(page: Page, choice: Choice, tab: gr.Tab) -> None:
    """Two models side by side: answers, Score-CAM, contexts by stage and head."""
    said, columns = gr.HTML(), []
    said_later = gr.HTML()  # about Score-CAM
    with gr.Row():
        for place in range(2):
            with gr.Column(visible=not place) as column:
                cells = (gr.HTML(), picture("where it looks"), picture("contexts by head"))
                columns.append((column, *cells))
    outputs = [said, *(part for column in columns for part in (*column[:2], column[3]))]
    inputs = [choice.image, choice.first, choice.second]

    def read(image: str, first: str, second: str) -> tuple[list[str], Settings]:
        return [first, second], Settings(image)

    def update(*values: str) -> Iterator[Any]:
        words, settings = read(*values)
        shown = page.show("look", words, settings)
        if isinstance(shown, str):
            yield [error_line(shown), *_hide(True), *_hide(False), None, None, ""]
            return
        yield [lines(shown.notes), *_look_cells(page, words, shown), None, None, ""]

    def cams(*values: str) -> Iterator[Any]:
        words, settings = read(*values)
        shown = page.show("score_cam", words, settings)  # its error is that of `update`
        found = Shown() if isinstance(shown, str) else shown
        pictures = [found.pictures.get(f"Score-CAM of {word}") for word in words]
        yield [*pictures, lines(found.notes)]

    # Score-CAM runs the network once for each channel: it comes later.
    places = [*(column[2] for column in columns), said_later]
    page.follow(tab, inputs, (update, [*outputs, *places]), (cams, places))
    page.numbers("look", inputs, read)


def _look_cells(page: Page, words: list[str], shown: Shown) -> list[Any]:
    cells: list[Any] = []
    for place, word in enumerate(words):
        if word not in page.bench.models or word in words[:place]:
            cells += _hide(not place)
            continue
        answers = Shown(answers={word: shown.answers[word]})
        contexts = shown.pictures.get(f"contexts of {word}")
        cells += [gr.Column(visible=True), page.bars_of(answers), contexts]
    return cells


def _hide(visible: bool) -> list[Any]:
    """Returns an empty column."""
    return [gr.Column(visible=visible), "", None]


# ---- Frequencies


def frequencies_tab(page: Page, choice: Choice, tab: gr.Tab) -> None:
    """A band of the image, what stages keep of it, and the filters."""
    said = gr.HTML()
    with gr.Row():
        low = gr.Slider(0, 1.5, 0, step=0.01, label="keep from (fraction of Nyquist)")
        high = gr.Slider(0, 1.5, 1.5, step=0.01, label="keep up to (fraction of Nyquist)")
    with gr.Row():
        with gr.Column(scale=3):
            shown_band = picture("the image, and its spectrum")
        with gr.Column(scale=1):
            answers = gr.HTML()
    with gr.Row():
        with gr.Column():
            shown_stages = picture("what each stage keeps", is_drawing=True)
        with gr.Column():
            side = gr.Slider(2, 256, 14, step=1, label="size of the filters (bins)")
            shown_filters = picture("masks of the heads, or learnt gains", is_drawing=True)
    inputs = [choice.image, choice.first, low, high, side]

    def read(
        image: str, first: str, low: float, high: float, side: int
    ) -> tuple[list[str], Settings]:
        return [first], Settings(image, low, high, int(side))

    def live(*values: Any) -> list[Any]:
        words, settings = read(*values)
        shown = page.show("band", words, settings)
        if isinstance(shown, str):
            return [error_line(shown), gr.skip(), ""]
        return ["", shown.pictures.get("band"), page.bars_of(shown, words[0])]

    def show_filters(*values: Any) -> list[Any]:
        shown = page.show("filters", *read(*values))
        if isinstance(shown, str):
            return [error_line(shown), None]
        return [lines(shown.notes), shown.pictures.get("filters")]

    def update(*values: Any) -> Iterator[Any]:
        curves = page.show("stages", *read(*values))
        stages = None if isinstance(curves, str) else curves.pictures.get("stages")
        message, filters = show_filters(*values)
        note, *cells = live(*values)
        failed = error_line(curves) if isinstance(curves, str) else ""
        yield [note or failed or message, *cells, stages, filters]

    for slider in (low, high):
        slider.input(live, inputs, [said, shown_band, answers], **LIVE)
    side.input(show_filters, inputs, [said, shown_filters], **LIVE)
    everything = [said, shown_band, answers, shown_stages, shown_filters]
    page.follow(tab, inputs, (update, everything))
    page.numbers("frequencies", inputs, read)


# ---- Balance


def balance_tab(page: Page, choice: Choice, tab: gr.Tab) -> None:
    """Sliders for λ of a stage; the trade-off over the folder."""
    said = gr.HTML()
    with gr.Row():
        with gr.Column(scale=1):
            stage = gr.Radio([], label="stage")
            sliders = [
                gr.Slider(0, 1, 0.5, step=0.01, label=f"λ of head {i + 1}", visible=False)
                for i in range(MOST_HEADS)
            ]
            own = gr.Button("the network's own λ", size="sm")
            answers = gr.HTML()
        with gr.Column(scale=2):
            contexts = picture("contexts by head: with its own λ above, with this one below")
            spectrum = picture("spectrum of the mixer's output", is_drawing=True)
    with gr.Row():
        sweep = gr.Button("trade-off over the folder (all heads have one λ)")
        limit = gr.Slider(4, 64, 32, step=4, label="images of the folder")
    sweep_said = gr.HTML()
    with gr.Row():
        with gr.Column():
            right = picture("right answers", is_drawing=True)
        with gr.Column():
            high = picture("high frequencies", is_drawing=True)
    shown_on = [said, answers, contexts, spectrum]
    inputs = [choice.image, choice.first, stage, *sliders]

    def read(image: str, first: str, stage: str, *values: float) -> tuple[list[str], Settings]:
        heads = len(_stages_of(page, first).get(stage, []))
        return [first], Settings(image, stage=stage or "", balance=values[:heads])

    def live(*values: Any) -> Iterator[list[Any]]:
        words, settings = read(*values)
        shown = page.show("balanced_contexts", words, settings)
        if isinstance(shown, str):
            yield [error_line(shown), "", None, None]
            return
        bars, pictures = page.bars_of(shown, words[0]), shown.pictures.get("contexts")
        yield [lines(shown.notes), bars, pictures, gr.skip()]
        # matplotlib takes longer than the network.
        drawn = page.show("balanced_spectrum", words, settings)
        curve = None if isinstance(drawn, str) else drawn.pictures.get("spectrum")
        yield [gr.skip(), gr.skip(), gr.skip(), curve]

    def reset(image: str, first: str, stage: str) -> Iterator[list[Any]]:
        known = _stages_of(page, first)
        stage = stage if stage in known else next(iter(known), "")
        values = known.get(stage, [])
        padded = [*values, *[0.5] * MOST_HEADS][:MOST_HEADS]
        updates = [gr.Slider(value=v, visible=i < len(values)) for i, v in enumerate(padded)]
        set_up: list[Any] = [gr.Radio([*known], value=stage or None), *updates]
        for shown in live(image, first, stage, *padded):
            yield [*set_up, *shown]
            set_up = [gr.skip() for _ in set_up]

    def read_sweep(first: str, stage: str, limit: int) -> tuple[list[str], Settings]:
        return [first], Settings(stage=stage or "", limit=int(limit))

    def trade(first: str, stage: str, limit: int, progress: gr.Progress = PROGRESS) -> list[Any]:
        track_with(_tracker(progress))
        shown = page.show("tradeoff", *read_sweep(first, stage, limit))
        if isinstance(shown, str):
            return [error_line(shown), None, None]
        pictures = [shown.pictures.get(title) for title in ("right answers", "high frequencies")]
        return [lines(shown.notes), *pictures]

    for slider in sliders:
        slider.input(live, inputs, shown_on, **LIVE)
    first_inputs, everything = inputs[:3], [stage, *sliders, *shown_on]
    stage.input(reset, first_inputs, everything, **LIVE)
    own.click(reset, first_inputs, everything, **LIMITS)
    sweep.click(trade, [choice.first, stage, limit], [sweep_said, right, high], **LONG)
    page.follow(tab, first_inputs, (reset, everything))
    page.numbers("balance", inputs, read)
    gr.Markdown("Numbers of the trade-off:")
    page.numbers("tradeoff", [choice.first, stage, limit], read_sweep)


def _stages_of(page: Page, word: str) -> dict[str, list[float]]:
    if word not in page.bench.models:
        return {}
    return balanced_stages(page.bench.models[word].source.network)


# ---- Compare


def compare_tab(page: Page, choice: Choice, tab: gr.Tab) -> None:
    """Two or three models on the folder."""
    del choice, tab
    with gr.Row():
        chosen = gr.CheckboxGroup(
            page.words, value=page.words[:MOST_MODELS], label="two or three models"
        )
        limit = gr.Slider(8, 1000, 64, step=8, label="images of the folder")
        start = gr.Button("compare", variant="primary")
    said, rows = gr.HTML(), gr.HTML()
    apart = picture("where they disagree")

    def read(words: list[str], limit: int) -> tuple[list[str], Settings]:
        return list(words), Settings(limit=int(limit))

    def run(words: list[str], limit: int, progress: gr.Progress = PROGRESS) -> list[Any]:
        track_with(_tracker(progress))
        shown = page.show("compare", *read(words, limit))
        if isinstance(shown, str):
            return [error_line(shown), "", None]
        columns = {
            one.plot: dict(zip(map(str, one.x), one.values.tolist(), strict=True))
            for one in shown.series
            if one.name == "by model"
        }
        return [lines(shown.notes), table(columns), shown.pictures.get("disagreements")]

    start.click(run, [chosen, limit], [said, rows, apart], **LONG)
    page.numbers("compare", [chosen, limit], read)


def _tracker(progress: Any) -> Any:
    def track(items: Any, total: int, title: str) -> Any:
        return progress.tqdm(items, desc=title, total=total)

    return track


# ---- Detect


def detect_tab(page: Page, choice: Choice, tab: gr.Tab) -> None:
    """Boxes and masks above a score."""
    with gr.Row():
        model = gr.Dropdown(page.dense, value=next(iter(page.dense), None), label="model")
        score = gr.Slider(0, 1, 0.5, step=0.01, label="smallest score or probability")
    said = gr.HTML()
    with gr.Row():
        with gr.Column(scale=3):
            shown_on = picture("objects, or classes of pixels")
        with gr.Column(scale=1):
            listed = gr.HTML()
    inputs, outputs = [choice.image, model, score], [said, shown_on, listed]

    def read(image: str, word: str, score: float) -> tuple[list[str], Settings]:
        return [word], Settings(image, min_score=score)

    def live(*values: Any) -> list[Any]:
        shown = page.show("detect", *read(*values))
        if isinstance(shown, str):
            return [error_line(shown), None, ""]
        answers = dict(shown.answers)
        for one in shown.series:
            if one.plot == "score of objects" and len(one.x):
                pairs = zip(map(str, one.x), one.values.tolist(), strict=True)
                answers["score"] = dict(list(pairs)[:30])
        drawn = next(iter(shown.pictures.values()))
        return [lines(shown.notes), drawn, page.bars_of(Shown(answers=answers))]

    def update(*values: Any) -> Iterator[Any]:
        yield live(*values)

    for part in (score, model):
        part.input(live, inputs, outputs, **LIVE)
    page.follow(tab, inputs, (update, outputs))
    page.numbers("detect", inputs, read)


TABS: dict[str, TabMaker] = {
    "look": look_tab,
    "frequencies": frequencies_tab,
    "balance": balance_tab,
    "compare": compare_tab,
    "detect": detect_tab,
}
