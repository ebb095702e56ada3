"""Pages of HTML: whatever the text is, it stays text."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import check_page
from PIL import Image

from spanets_runtime.html import MOST_BYTES, Page, html_table, mark_of, to_html
from spanets_runtime.text import escape_controls

MARK = mark_of("a test")


class Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.found = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes = dict(attrs)

    def handle_data(self, data):
        self.found += data


TEXTS = st.text(st.characters(exclude_categories=()), max_size=30) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        "\"'>&<",
        "&lt;",
        "\u202ebackwards",
        "a\x00b",
        "\ud800",
        "🐈" * 300,
    ]
)


@given(TEXTS)
def test_a_text_stays_a_text(text):
    page = Texts()
    page.feed(f'<p title="{to_html(text)}">{to_html(text)}</p>')
    page.close()
    assert page.tags == ["p"]
    assert page.found == page.attributes["title"] == escape_controls(text)


@given(st.lists(st.tuples(TEXTS, st.floats() | st.integers() | st.none()), min_size=1, max_size=4))
def test_a_table_holds_its_cells(rows):
    page = Texts()
    page.feed(html_table(("name", "number"), rows))
    page.close()
    assert set(page.tags) == {"div", "table", "tr", "th", "td"}
    assert page.tags.count("td") == 2 * len(rows)
    assert all(escape_controls(name) in page.found for name, _ in rows)


def test_pictures_beyond_the_limit_are_counted(tmp_path):
    page = Page(MARK, 64)
    page.left = 10_000
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    body = [page.figure(noise, ["a&lt;b"], '"title"') for _ in range(4)]
    assert page.left >= 0
    page.write(tmp_path / "a.html", "<title>", body)
    text = check_page(tmp_path / "a.html")
    assert (tmp_path / "a.html").read_bytes().startswith(MARK)
    assert f"{page.left_out} pictures left out" in text and 0 < page.left_out < 4
    assert MOST_BYTES < 3_000_000


@pytest.mark.parametrize("size", [(1000, 2), (2, 1000), (64, 1)])
def test_an_elongated_picture_is_a_line(size):
    figure = Page(MARK, 64).figure(Image.new("RGB", size), [], "")
    assert "data:image/jpeg" in figure
