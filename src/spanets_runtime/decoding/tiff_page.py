"""Reads from the tags how a TIFF page stores its pixels, and refuses unsupported kinds."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from spanets_runtime.decoding import tiff_segments as segments
from spanets_runtime.decoding import tiff_tags as tag
from spanets_runtime.decoding.decoded import Refused, check_size
from spanets_runtime.decoding.tiff_tags import Tags

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3, LAB: 3}
_OTHERS = {4: "a transparency mask", 9: "ICC Lab", 10: "ITU Lab", 32803: "raw sensor data"}
_OTHERS |= {32844: "LogL", 32845: "LogLuv", 34892: "linear raw data"}
_COMPRESSIONS = {6: "old JPEG", 33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000"}
_COMPRESSIONS |= {50001: "WEBP", 50002: "JPEG XL", 34887: "LERC", 32809: "ThunderScan"}

_MAX_SAMPLES = 64
_MAX_SEGMENTS = 2**20
PIECE_BYTES = 2**25
"""Uncompressed data to process at a time, in bytes."""

_ADVICE = "save it as PNG, or as TIFF with 8 or 16 bits"
_STORED = "classifiers read it with data.channels; else save it with 8 or 16 bits"


@dataclass(frozen=True)
class Page:
    """How a page stores its pixels.

    Attributes:
        width: Width in pixels.
        height: Height in pixels.
        bits: Bits of a sample.
        photometric: TIFF's number of the colour space.
        samples: Samples of a pixel, including extra ones.
        alpha: Index of the alpha sample and whether the colours are premultiplied, or None.
        compression: TIFF's number of the compression.
        is_planar: Whether the samples are stored in separate planes.
        differences: Whether a sample is stored as the difference from its left neighbour.
        is_mirrored: Whether the first pixel is in the lowest bit of a byte.
        dtype: Type of samples of 8, 16 and 32 bits, in the file's byte order.
        is_tiled: Whether the segments are tiles, not strips.
        segment: Height and width of a segment, in pixels.
        places: Offset and length of each segment, (N, 2).
    """

    width: int
    height: int
    bits: int
    photometric: int
    samples: int
    alpha: tuple[int, bool] | None
    compression: int
    is_planar: bool
    differences: bool
    is_mirrored: bool
    dtype: np.dtype[Any]
    is_tiled: bool
    segment: tuple[int, int]
    places: NDArray[np.int64]

    @classmethod
    def parse(cls, tags: Tags, max_pixels: int) -> Self:
        """Reads the tags of a page.

        Raises:
            Refused: the tags are damaged, or the kind is not supported.
        """
        width, height = tags.one(tag.WIDTH, 0), tags.one(tag.HEIGHT, 0)
        check_size(width, height, max_pixels)
        samples = tags.one(tag.SAMPLES, 1)
        bits, kind = _check_numbers(tags, samples)
        _check_meaning(tags, samples, bits)
        compression, is_tiled = tags.one(tag.COMPRESSION, 1), tag.TILE_WIDTH in tags
        page = cls(
            width=width,
            height=height,
            bits=bits,
            photometric=tags.one(tag.PHOTOMETRIC, 0),
            samples=samples,
            alpha=_find_alpha(tags, samples),
            compression=compression,
            is_planar=tags.one(tag.PLANAR, 1) == 2 and samples > 1,
            differences=tags.one(tag.PREDICTOR, 1) == 2 and compression in segments.PREDICTED,
            is_mirrored=tags.one(tag.FILL_ORDER, 1) == 2,
            dtype=np.dtype(f"{tags.order}{kind}{max(1, bits // 8)}"),
            is_tiled=is_tiled,
            segment=_segment_size(tags, width, height, is_tiled),
            places=_places(tags, is_tiled),
        )
        page._check_segments(tags.size)
        return page._in_pieces()

    @property
    def colours(self) -> int:
        """Number of colour samples of a pixel."""
        return COLOURS[self.photometric]

    @property
    def in_plane(self) -> int:
        """Number of samples of a pixel that are stored together."""
        return 1 if self.is_planar else self.samples

    @property
    def row_bytes(self) -> int:
        """Size of a row of a segment, in bytes."""
        return -(-self.segment[1] * self.in_plane * self.bits // 8)

    def _in_pieces(self) -> Self:
        """Splits one large uncompressed strip into several, so that each can be read on its own."""
        rows = max(1, PIECE_BYTES // self.row_bytes)
        is_one = len(self.places) == 1 and not self.is_tiled and not self.is_planar
        if self.compression != segments.NONE or not is_one or self.segment[0] <= rows:
            return self
        offset, length = self.places[0].tolist()
        starts = range(0, self.height * self.row_bytes, rows * self.row_bytes)
        places = [(offset + start, min(rows * self.row_bytes, length - start)) for start in starts]
        return replace(self, segment=(rows, self.width), places=np.array(places, np.int64))

    def _check_segments(self, file_bytes: int) -> None:
        rows, columns = self.segment
        if min(rows, columns) < 1:
            raise Refused("truncated or corrupt image (its strips or tiles have no size)")
        across, down = -(-self.width // columns), -(-self.height // rows)
        needed = across * down * (self.samples if self.is_planar else 1)
        if needed > _MAX_SEGMENTS:
            raise Refused(f"a TIFF of more than {_MAX_SEGMENTS} strips or tiles; {_ADVICE}")
        offsets, lengths = self.places.T
        if len(self.places) < needed or (lengths <= 0).any() or (offsets < 0).any():
            raise Refused("truncated or corrupt image (it lacks strips or tiles)")
        if (offsets + lengths > file_bytes).any():
            raise Refused("truncated or corrupt image (the file ends before its last pixels)")


def _check_numbers(tags: Tags, samples: int) -> tuple[int, str]:
    """Returns the bits of a sample, and "u" or "i" for numbers without or with a sign."""
    if not 1 <= samples <= _MAX_SAMPLES:
        raise Refused(f"a TIFF of {samples} samples a pixel; at most {_MAX_SAMPLES} are supported")
    all_bits = set(tags.all(tag.BITS)[:samples]) or {1}
    kinds = set(tags.all(tag.FORMAT)[:samples]) or {1}
    if len(all_bits) > 1 or len(kinds) > 1:
        raise Refused(f"a TIFF whose samples differ in kind (bits {sorted(all_bits)}); {_ADVICE}")
    bits, kind = all_bits.pop(), kinds.pop()
    if kind == 3:
        raise Refused(f"floating-point pixels have no fixed range; {_STORED}")
    if kind not in (1, 2, 4):
        raise Refused(f"a TIFF of complex numbers; {_ADVICE}")
    if kind == 2 and bits != 32:  # some programs write unsigned 16 bits as signed 32
        raise Refused(f"numbers of {bits} bits with a sign have no fixed range; {_ADVICE}")
    if not (1 <= bits <= 16 or (bits == 32 and samples == 1)):
        raise Refused(f"a TIFF of {bits} bits a sample has no fixed range; {_ADVICE}")
    return bits, "i" if kind == 2 else "u"


def _check_meaning(tags: Tags, samples: int, bits: int) -> None:
    """Refuses colour spaces, compressions and pages that are not supported."""
    if tag.DNG_VERSION in tags:
        raise Refused("a raw photograph (DNG); develop it and save it as PNG or TIFF")
    if tags.one(tag.SUBFILE, 0) & 1 and (tags.has_more or tag.SUB_PAGES in tags):
        raise Refused(f"a TIFF whose first page is a small copy, as of raw photographs; {_ADVICE}")
    _check_compression(tags, samples, bits)
    photometric = tags.one(tag.PHOTOMETRIC, 0)
    if photometric not in COLOURS:
        name = _OTHERS.get(photometric, f"photometric {photometric}")
        raise Refused(f"a TIFF of {name}, which is not read; {_ADVICE}")
    extra = samples - COLOURS[photometric]
    if extra < 0 or (extra > 1 and photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)):
        raise Refused(f"a TIFF of {samples} samples a pixel, of no known colours; {_STORED}")
    if photometric == PALETTE and (bits > 8 or len(tags.array(tag.COLORMAP)) != 3 * 2**bits):
        raise Refused(f"a TIFF with a palette of {bits} bits, whose colours are not all there")
    if photometric == CMYK and tags.one(tag.INK_SET, 1) != 1:
        raise Refused(f"a TIFF of inks other than CMYK; {_ADVICE}")
    is_plain = bits == 8 and not extra and _has_plain_ranges(tags)
    is_odd = photometric == LAB and tags.one(tag.COMPRESSION, 1) == segments.JPEG
    if photometric in (YCBCR, LAB) and (is_odd or not is_plain):
        raise Refused(f"a TIFF of YCbCr or Lab in a rare form, which is not read; {_ADVICE}")


def _check_compression(tags: Tags, samples: int, bits: int) -> None:
    compression, predictor = tags.one(tag.COMPRESSION, 1), tags.one(tag.PREDICTOR, 1)
    if compression not in segments.KNOWN:
        name = _COMPRESSIONS.get(compression, compression)
        raise Refused(f"a TIFF of compression {name}, which is not read; {_ADVICE}")
    if compression in segments.FAX and (bits, samples) != (1, 1):
        raise Refused("truncated or corrupt image (a fax of more than black and white)")
    if compression == segments.JPEG and bits != 8:
        raise Refused(f"a TIFF with JPEG of {bits} bits, only 8 are supported; {_ADVICE}")
    if compression in segments.PREDICTED and predictor not in (1, 2):
        raise Refused(f"a TIFF of predictor {predictor}, which is not read; {_ADVICE}")
    if compression in segments.PREDICTED and predictor == 2 and bits not in (8, 16, 32):
        raise Refused(f"a TIFF of differences of {bits} bits, which is not read; {_ADVICE}")


def _has_plain_ranges(tags: Tags) -> bool:
    """Returns whether YCbCr has no subsampling and full range; JPEG data carry this themselves."""
    if tags.one(tag.PHOTOMETRIC, 0) != YCBCR or tags.one(tag.COMPRESSION, 1) == segments.JPEG:
        return True
    ranges = tags.array(tag.RANGES)
    whole = (0, 255, 128, 255, 128, 255)
    is_whole = not len(ranges) or tuple(ranges[::2] / np.maximum(ranges[1::2], 1)) == whole
    return tags.all(tag.SUBSAMPLING) == (1, 1) and is_whole


def _find_alpha(tags: Tags, samples: int) -> tuple[int, bool] | None:
    """Returns the index of the first alpha sample and whether the colours are premultiplied.

    An unspecified extra sample of RGB counts as alpha, as in Pillow.
    """
    colours = COLOURS[tags.one(tag.PHOTOMETRIC, 0)]
    unsaid = (2,) if tags.one(tag.PHOTOMETRIC, 0) == RGB else ()
    for place, kind in enumerate(tags.all(tag.EXTRA) or unsaid, start=colours):
        if place < samples and kind in (1, 2, 999):  # 999 is Corel Draw's
            return place, kind == 1
    return None


def _segment_size(tags: Tags, width: int, height: int, is_tiled: bool) -> tuple[int, int]:
    if is_tiled:
        rows, columns = tags.one(tag.TILE_HEIGHT, 0), tags.one(tag.TILE_WIDTH, 0)
        # Tiles are padded, so a tile may be larger than a small page.
        if rows * columns > 4 * (width + 1024) * (height + 1024):
            raise Refused("truncated or corrupt image (its tiles are larger than it)")
        return rows, columns
    return min(tags.one(tag.ROWS_PER_STRIP, height), height), width


def _places(tags: Tags, is_tiled: bool) -> NDArray[np.int64]:
    names = (tag.STRIP_OFFSETS, tag.STRIP_COUNTS)
    if is_tiled and tag.TILE_OFFSETS in tags:  # some writers use the names of strips
        names = (tag.TILE_OFFSETS, tag.TILE_COUNTS)
    offsets, lengths = (tags.array(name).astype(np.int64) for name in names)
    if len(offsets) == 1 and not len(lengths):  # some old writers omit the length
        lengths = tags.size - offsets
    count = min(len(offsets), len(lengths))
    return np.stack([offsets[:count], lengths[:count]], axis=1)
