"""Run lengths against pycocotools, and what is not run lengths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as peer

from spanets.formats.coco.rle import decode_runs, encode_runs

MASKS = arrays.arrays(
    np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=70), elements=st.integers(0, 1)
)


@given(MASKS)
def test_there_and_back(mask):
    assert np.array_equal(decode_runs(encode_runs(mask), *mask.shape), mask)


@given(MASKS)
def test_both_forms_are_those_of_pycocotools(mask):
    compressed = peer.encode(np.asfortranarray(mask))["counts"]
    assert np.array_equal(decode_runs(compressed.decode(), *mask.shape), mask)
    uncompressed = {"size": list(mask.shape), "counts": encode_runs(mask)}
    assert peer.frPyObjects(uncompressed, *mask.shape)["counts"] == compressed


def test_columns_come_first_and_zeros_before_ones():
    assert encode_runs(np.array([[1, 0], [0, 0], [0, 1]])) == [0, 1, 4, 1]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([3, 4], "add up to 7, not 2x3"),
        ([3, 300], "add up to 303"),
        ([], "add up to 0"),
        ([7, -1], "0 or more"),
        ([3.0, 3.0], "whole numbers"),
        ([True, 5], "whole numbers"),
        (["3", 3], "whole numbers"),
        ("33 3", "not COCO's compressed text"),
        ("é", "not COCO's compressed text"),
        ("P" * 20, "not COCO's compressed text"),  # "more follows", twenty times
        ("P", "end within a number"),
        ("O3", "0 or more"),  # -1, then 3
        ("34", "add up to 7, not 2x3"),
    ],
)
def test_what_is_no_mask(counts, message):
    with pytest.raises(ValueError, match=message):
        decode_runs(counts, 2, 3)
