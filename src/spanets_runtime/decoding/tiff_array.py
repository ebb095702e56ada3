"""Reads TIFF of any number of channels with tifffile: a page, or a page a channel.

tifffile trusts a file's numbers. So sizes are checked before it reads pixels, and only
compressions are accepted whose output is bounded by the size of a strip or tile.
"""

import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from spanets_runtime.decoding.decoded import Refused, check_stored
from spanets_runtime.errors import require

_NONE, _DEFLATE = 1, (8, 32946, 50013)
_PLAIN = (_NONE, *_DEFLATE, 32773)
"""Compressions that are read without imagecodecs: none, deflate and PackBits."""

_WITH_CODECS = {5: "LZW", 34925: "LZMA", 34926: "Zstandard", 50000: "Zstandard"}

_WHITE_IS_ZERO, _PLAIN_MEANINGS = 0, (0, 1, 2, 5)  # gray, RGB, separated inks
_AXES = {"YX": (0, 1, None), "YXS": (0, 1, 2), "SYX": (1, 2, 0)}
_NODATA = 42113  # GDAL's tag
_ORIENTATION = 274
_MAX_PAGES = 2**14
_MAX_SEGMENTS = 2**20
_ADVICE = "save it with deflate, or uncompressed"


def read_tiff_array(
    file: BinaryIO, channels: int | None, max_pixels: int
) -> tuple[NDArray[Any], int]:
    """Reads the channels of a TIFF file: of one page, or of several pages of one size.

    Pages marked as reduced copies or masks are left out, as in GeoTIFF with overviews. An array
    (H, W, C) that tifffile or scikit-image wrote as H pages of W rows is put together again.

    Args:
        file: The open file.
        channels: Wanted number of channels; None takes all pages.
        max_pixels: Limit of width times height.

    Returns:
        The image (H, W, C) as stored, and its EXIF orientation.

    Raises:
        Refused: the image is too large, damaged or of an unsupported kind.
        UserError: tifffile is not installed.
    """
    tifffile: Any = require("tifffile", "tiff")
    file.seek(0)
    with _without_messages(), tifffile.TiffFile(file) as tiff:
        pages = list(_pages(tiff))
        first = pages[0]
        samples = sum(page.samplesperpixel for page in pages)
        is_by_row = samples == len(pages) != channels == first.imagewidth
        if channels is not None and samples != channels and not is_by_row:
            of = f"{len(pages)} pages of " if len(pages) > 1 else ""
            raise Refused(
                f"has {of}{first.samplesperpixel} channels, must have {channels} (data.channels)"
            )
        height, width = first.imagelength, first.imagewidth
        if is_by_row:
            height, width, samples = samples, height, width
        for page in pages:
            if page.shape[:2] != first.shape[:2] or page.dtype != first.dtype:
                raise Refused("a TIFF whose pages differ in size or type")
            check_stored(height, width, samples, page.dtype, max_pixels)
            _check_page(page)
        tag = first.tags.get(_ORIENTATION)
        found = np.concatenate([_read_page(page) for page in pages], axis=2)
    return found.transpose(2, 0, 1) if is_by_row else found, int(tag.value) if tag else 1


def _pages(tiff: Any) -> Iterator[Any]:
    for number, page in enumerate(tiff.pages):
        if number == _MAX_PAGES:
            raise Refused(f"a TIFF of more than {_MAX_PAGES} pages")
        if not number or not (page.is_reduced or page.is_mask):
            yield page


def _check_page(page: Any) -> None:
    """Refuses what is not read, before pixels are."""
    if page.dtype is None or page.axes not in _AXES:
        raise Refused(f"a TIFF of {page.bitspersample} bits and axes {page.axes}; {_ADVICE}")
    if page.photometric not in _PLAIN_MEANINGS:
        name = getattr(page.photometric, "name", page.photometric)
        raise Refused(f"a TIFF of photometric {name}, whose numbers are no intensities")
    if len(page.dataoffsets) > _MAX_SEGMENTS:
        raise Refused(f"a TIFF of more than {_MAX_SEGMENTS} strips or tiles")
    sides = (page.imagewidth + 1024) * (page.imagelength + 1024)
    if page.is_tiled and page.tilewidth * page.tilelength > 4 * sides:
        raise Refused("truncated or corrupt image (its tiles are larger than it)")
    if missing := sum(length == 0 for length in page.databytecounts):
        raise Refused(
            f"lacks {missing} strips or tiles, as sparse files do; write it without SPARSE_OK"
        )
    end = page.parent.filehandle.size
    ends = zip(page.dataoffsets, page.databytecounts, strict=False)
    if any(offset + length > end for offset, length in ends):
        raise Refused("truncated or corrupt image (the file ends before its last pixels)")
    _check_compression(page)


def _check_compression(page: Any) -> None:
    compression = int(page.compression)
    has_codecs = find_spec("imagecodecs") is not None
    is_packed = page.bitspersample not in (1, 8, 16, 32, 64) or page.predictor == 3
    if compression not in _PLAIN and compression not in _WITH_CODECS:
        name = getattr(page.compression, "name", compression)
        raise Refused(f"a TIFF of compression {name}, which is not read; {_ADVICE}")
    if not has_codecs and (compression in _WITH_CODECS or is_packed):
        what = f"compression {_WITH_CODECS[compression]}" if compression in _WITH_CODECS else ""
        what = what or f"{page.bitspersample} bits and predictor {int(page.predictor)}"
        raise Refused(f"a TIFF of {what}, which is read after: pip install 'spanets[tiff-codecs]'")
    if compression in _DEFLATE:
        _check_inflated(page)


def _check_inflated(page: Any) -> None:
    """Refuses a segment that inflates to more than its size; tifffile alone has no limit."""
    size = int(np.prod(page.chunks)) * page.dtype.itemsize
    file = page.parent.filehandle
    for offset, length in zip(page.dataoffsets, page.databytecounts, strict=False):
        file.seek(offset)
        inflating = zlib.decompressobj()
        inflating.decompress(file.read(length), size + 1)
        if inflating.unconsumed_tail:
            raise Refused("truncated or corrupt image (a strip or tile larger than its size)")
        if not inflating.eof and length:
            raise Refused("truncated or corrupt image (it holds less than its size)")


def _read_page(page: Any) -> NDArray[Any]:
    rows, columns, samples = _AXES[page.axes]
    array: NDArray[Any] = page.asarray(maxworkers=1)
    if samples is None:
        array = array[..., None]
    elif samples == 0:
        array = array.transpose(rows, columns, samples)
    if page.photometric == _WHITE_IS_ZERO and array.dtype.kind in "ub":
        array = (2 ** int(page.bitspersample) - 1 - array).astype(array.dtype)
    _check_nodata(page, array)
    return array


def _check_nodata(page: Any, array: NDArray[Any]) -> None:
    """Refuses floats marked as missing, such as -9999; integers stay as stored."""
    if _NODATA in page.tags and array.dtype.kind == "f":
        value = float(str(page.tags[_NODATA].value).strip("\0 "))
        if count := int((array == array.dtype.type(value)).sum()):
            raise Refused(f"has {count} pixels without data ({value:g}); fill them")


@contextmanager
def _without_messages() -> Iterator[None]:
    """Hides tifffile's log about damaged metadata."""
    logger = logging.getLogger("tifffile")

    def hide(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(hide)
    try:
        yield
    finally:
        logger.removeFilter(hide)
