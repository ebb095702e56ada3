"""Lists of the colours of classes."""

import pytest

from spanets.formats.colours import find_colours


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("class_dict.csv", "name,r,g,b\nzone 1,255,0,0\nzone 2,0,255,0\n"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nzone 1:255,0,0::\nzone 2:0,255,0::\n"),
        ("label_colors.txt", "255 0 0\tzone 1\n0 255 0\tzone 2\n"),
        ("palette.txt", "zone 1 255 0 0\nzone 2; 0 255 0; 7\n"),
    ],
)
def test_names_that_end_in_a_number(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    colours = find_colours(tmp_path)
    assert colours is not None
    assert colours.names == ["zone 1", "zone 2"]
    assert colours.numbers == {(255, 0, 0): 0, (0, 255, 0): 1}
