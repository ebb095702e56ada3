"""The list of a split keeps every name that a file can have, and says what is wrong with it."""

import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanets.data.split_list import SPLIT, read_split, write_split
from spanets_runtime.errors import UserError

quick = settings(max_examples=20, deadline=None, database=None, derandomize=True)

ODD = ['a,b"c.png', "a\nb.png", "a\r.png", "\r\n", '"', " x ", "größte.png", "\ufeffx.png", "'=1+1"]
ODD += [os.fsdecode(b"caf\xe9/\xff.png"), "\u2028\x0b\x85.png", "#2.png", "image", "image,part"]


def test_names_of_every_kind(tmp_path):
    names = {"train": ODD[::2], "val": ODD[1::2]}
    write_split(tmp_path, names)
    found = read_split(tmp_path)
    assert dict(found.parts) == {name: part for part in names for name in names[part]}
    assert found.path == tmp_path / SPLIT


@quick
@given(st.lists(st.binary(min_size=1, max_size=12).filter(lambda b: b"\0" not in b), unique=True))
def test_any_bytes(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("list")
    texts = [os.fsdecode(name) for name in names]
    write_split(folder, {"train": texts, "val": []})
    assert read_split(folder).parts == dict.fromkeys(texts, "train")


def test_what_people_read(tmp_path):
    write_split(tmp_path, {"train": ["cat/1.png"], "val": ["dog/a b.png", "x,y.png"]})
    text = (tmp_path / SPLIT).read_text()
    assert text == 'image,part\ncat/1.png,train\ndog/a b.png,val\n"x,y.png",val\n'


def test_a_list_that_was_edited(tmp_path):
    (tmp_path / SPLIT).write_bytes(b"\xef\xbb\xbfimage,part\r\ncat/1.png,val\r\ncat/1.png,val\r\n")
    assert read_split(tmp_path).parts == {"cat/1.png": "val"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "line 0: must begin with image,part"),
        ("name,part\n", "line 1: must begin with image,part"),
        ("image,part\na.png\n", "line 2: must be an image and its part, train or val"),
        ("image,part\na.png,test\n", "line 2: must be an image and its part, train or val"),
        ("image,part\na.png,val\na.png,train\n", "line 3: a.png is in both parts"),
        ('image,part\n"a.png,val\n', "line 2: unexpected end of data"),
        ("image,part\n" + "a" * 200_000 + ",val\n", "line 2: field larger than field limit"),
    ],
)
def test_damaged_lists(content, said, tmp_path):
    (tmp_path / SPLIT).write_text(content)
    with pytest.raises(UserError) as caught:
        read_split(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / SPLIT}: {said}")


def test_no_list(tmp_path):
    assert read_split(tmp_path) is None


def test_many_images(tmp_path):
    names = [f"class {i % 100:03}/{i:07}.jpeg" for i in range(20_000)]
    start = time.process_time()
    write_split(tmp_path, {"train": names, "val": []})
    assert list(read_split(tmp_path).parts) == names
    assert time.process_time() - start < 5  # a million take fifty times as long
