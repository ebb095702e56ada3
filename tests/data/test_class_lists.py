"""Lists of names as editors and other tools write them."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanets.data.class_lists import clean_name, read_lines, read_names
from spanets_runtime.errors import UserError

NAMES = ["ground", "Straße", "空", "traffic light"]

MARKS = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}
MARKS |= {"utf-32-le": codecs.BOM_UTF32_LE, "utf-8": codecs.BOM_UTF8}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", [None, *MARKS])
def test_encodings_and_line_ends(tmp_path, encoding, end):
    path = tmp_path / "classes.txt"
    mark = MARKS.get(encoding, b"")
    path.write_bytes(mark + (end.join(NAMES) + 2 * end).encode(encoding or "utf-8"))
    listed = read_names(path)
    assert listed.names == NAMES
    assert listed.notes == ()


@given(st.lists(st.text("abcß é空_-", min_size=1).filter(clean_name), min_size=1, max_size=9))
def test_names_come_back(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("names") / "classes.txt"
    path.write_text("\n".join(names), encoding="utf-8")
    assert read_lines(path) == [clean_name(name) for name in names]


def test_invisible_characters_around_names(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("\u200bground \u00a0\n\ufeffroad\u200e\t\nA\u0308cker\n", encoding="utf-8")
    assert read_names(path).names == ["ground", "road", "Äcker"]


def test_characters_that_end_no_line(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("a\u2028b\nc\u0085\n", encoding="utf-8")
    assert read_lines(path) == ["a\u2028b", "c"]


def test_blank_lines_shift_numbers_and_are_told(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("ground\n\n \nsquare\ndisc\n\n")
    listed = read_names(path)
    assert listed.names == ["ground", "square", "disc"]
    assert listed.notes == (
        f"{path}: 2 blank lines left out, the first is line 2; the number of 'square' after it is "
        "1",
    )


@pytest.mark.parametrize(
    "lines",
    [
        ["0 ground", "1 road"],
        ["1\tground", "2\troad"],
        ["0: ground", "7: road"],
        ["ground: 0", "road: 1"],
        ["ground,0,0,0", "road,128,64,128"],
        ["ground = 0", "road = 1"],
    ],
)
def test_names_with_numbers_are_refused(tmp_path, lines):
    path = tmp_path / "classes.txt"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"has numbers beside the names, .* write the names alone"):
        read_names(path)


@pytest.mark.parametrize(
    "lines",
    [
        ["grade 0", "grade 1"],
        ["2 euro", "1 euro", "50 cent"],
        ["ground", "2 storeys", "3 storeys"],
        ["7"],
        ["0", "1", "2"],
        ["a:b", "c:1"],
    ],
)
def test_names_that_have_numbers_in_them(tmp_path, lines):
    path = tmp_path / "classes.txt"
    path.write_text("\n".join(lines))
    assert read_names(path).names == lines


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9\nbar\n", "is not a text file in UTF-8"),
        ("ground\nroad\n".encode("utf-16-le"), "is not a text file in UTF-8, or in UTF-16 with"),
        (b"\xff\xfe\n", "is not a text file"),
        (b"ground\nro\x1bad\n", "line 2 holds a control character"),
    ],
)
def test_what_is_no_list(tmp_path, content, message):
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_names(path)


def test_no_file(tmp_path):
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(UserError, match="no such file"):
            read_names(path)
