"""What every page of HTML must be: one file that loads nothing."""

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "br", "circle", "line", "path"}


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.handlers: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for key, value in attrs if key in ("src", "href", "srcset", "data")]
        self.handlers += [key for key, _ in attrs if key.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "title"):
            self.text.append(data)


def check_page(path: Path) -> str:
    """Checks that a page is small and whole and loads nothing; returns its visible text."""
    content = path.read_text(encoding="utf-8")
    assert len(content.encode()) < 3_000_000
    page = _Reader()
    page.feed(content)
    assert not page.open
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert not page.handlers
    assert all(link.startswith("data:image/") for link in page.links)
    style = content.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style
    assert "Content-Security-Policy" in content and "default-src 'none'" in content
    assert 'name="viewport"' in content and "@media print" in style
    assert "prefers-color-scheme: dark" in style
    return " ".join(" ".join(page.text).split())
