"""Files of many containers, depths and layouts, against the numbers that were written in them."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from image_files import bmp_file, png_chunk, png_file, tiff_file
from PIL import Image

from spanets_runtime.images import ImageError, load_image
from spanets_runtime.labels import load_labels

ORIENTATIONS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
"""What turns the stored pixels upright."""

property_test = settings(
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


class Stored:
    """An image in memory."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self) -> bytes:
        return self.content

    def __str__(self) -> str:
        return "stored"


def shown(content: bytes) -> np.ndarray:
    return np.asarray(load_image(Stored(content))).astype(int)


def numbers(seed: int, height: int, width: int, samples: int, bits: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**bits, (height, width, samples), dtype=np.int64)


def to_8_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """What a viewer shows of the numbers: of more than 8 bits the upper ones."""
    return values >> (bits - 8) if bits >= 8 else np.rint(values * 255 / (2**bits - 1)).astype(int)


def over_white(colours: np.ndarray, alpha: np.ndarray, top: int) -> np.ndarray:
    share = alpha / top
    return colours * share + 255 * (1 - share)


def as_rgb(values: np.ndarray) -> np.ndarray:
    return np.repeat(values, 3, 2) if values.shape[2] == 1 else values


SIZES = {"height": st.integers(1, 20), "width": st.integers(1, 20), "seed": st.integers(0, 99)}


# ---- PNG

PNG_KINDS = [(d, c) for c in (0, 2, 3, 4, 6) for d in (1, 2, 4, 8, 16)
             if d >= 8 or c in (0, 3) if (d, c) != (16, 3)]  # fmt: skip
CHUNKS = {
    "none": b"",
    "text": png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 2_000_000)),
    "profile": png_chunk(b"iCCP", b"P3\0\0" + zlib.compress(bytes(2_100_000))),
    "damaged": png_chunk(b"pHYs", bytes(9), wrong=1),
    "unknown": png_chunk(b"prVt", bytes(99)),
    "gamma": png_chunk(b"gAMA", struct.pack(">I", 100_000)),
}


@property_test
@given(
    kind=st.sampled_from(PNG_KINDS),
    interlaced=st.booleans(),
    chunks=st.sampled_from(list(CHUNKS)),
    orientation=st.sampled_from(list(ORIENTATIONS)),
    transparent=st.booleans(),
    **SIZES,
)
def test_png(kind, interlaced, chunks, orientation, transparent, height, width, seed):
    depth, colour = kind
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    stored = numbers(seed, height, width, samples, depth)
    before, expected = CHUNKS[chunks], None
    if colour == 3:
        palette = numbers(seed + 1, 1, 2**depth, 3, 8)[0]
        before += png_chunk(b"PLTE", palette.astype(np.uint8).tobytes())
        expected = palette[stored[..., 0]]
        if transparent:
            alphas = numbers(seed + 2, 1, 2**depth, 1, 8)[0]
            before += png_chunk(b"tRNS", alphas.astype(np.uint8).tobytes())
            expected = over_white(expected, alphas[stored[..., 0]], 255)
    elif colour in (4, 6):
        eight = to_8_bits(stored, depth)
        expected = as_rgb(over_white(eight[..., :-1], eight[..., -1:], 255))
    else:
        expected = as_rgb(to_8_bits(stored, depth))
        if transparent:
            key = stored[height // 2, width // 2]
            before += png_chunk(b"tRNS", struct.pack(f">{samples}H", *key))
            expected = np.where((stored == key).all(-1, keepdims=True), 255, expected)
    exif = Image.Exif()
    exif[0x0112] = orientation
    before += png_chunk(b"eXIf", exif.tobytes()[6:])
    found = shown(png_file(stored, depth, colour, interlaced, before))
    wanted = ORIENTATIONS[orientation](expected)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1  # blending rounds


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_is_compared_in_all_its_bits(depth):
    low = 1 if depth == 8 else 257
    stored = np.array([[[5, 5, 5], [5, 5, 5 + low], [5, 5, 5]]])
    if depth == 16:
        stored = np.array([[[1280, 1280, 1280], [1280, 1280, 1281], [1280, 1280, 1280]]])
    key = struct.pack(">3H", *stored[0, 0])
    found = shown(png_file(stored, depth, 2, before=png_chunk(b"tRNS", key)))
    assert (found[0, :, 0] == 255).tolist() == [True, False, True]


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_labels_are_the_numbers_that_are_stored(tmp_path, depth):
    stored = numbers(depth, 7, 9, 1, depth)
    for colour in (0, 3) if depth < 16 else (0,):
        palette = png_chunk(b"PLTE", bytes(3 * 2**depth)) if colour == 3 else b""
        path = tmp_path / "mask.png"
        path.write_bytes(png_file(stored, depth, colour, before=palette))
        assert np.array_equal(load_labels(path), stored[..., 0])
    for photometric in (0, 1) if depth > 1 else (1,):  # of single bits either may be meant
        path.write_bytes(tiff_file(stored, depth, photometric))
        assert np.array_equal(load_labels(path), stored[..., 0])


# ---- TIFF

PACKINGS = [(1, 1), (8, 1), (8, 2), (32946, 1), (32773, 1)]


@property_test
@given(
    bits=st.sampled_from([1, 2, 4, 6, 8, 10, 12, 14, 16]),
    photometric=st.sampled_from([0, 1, 2, 3, 5]),
    order=st.sampled_from("<>"),
    big=st.booleans(),
    planar=st.booleans(),
    packing=st.sampled_from(PACKINGS),
    layout=st.sampled_from(["one", "strips", "tiles"]),
    extra=st.sampled_from([None, 0, 1, 2]),
    orientation=st.sampled_from(list(ORIENTATIONS)),
    **SIZES,
)
def test_tiff(
    bits, photometric, order, big, planar, packing, layout, extra, orientation, height, width, seed
):
    compression, predictor = packing
    assume(predictor == 1 or bits in (8, 16))
    assume(photometric != 3 or bits <= 8)
    colours = {2: 3, 5: 4}.get(photometric, 1)
    stored = numbers(seed, height, width, colours + (extra is not None), bits)
    if extra == 1:
        stored[..., :colours] = stored[..., :colours] * stored[..., colours:] // (2**bits - 1)
    more = {274: ("H", [orientation])}
    if extra is not None:
        more[338] = ("H", [extra])
    eight = to_8_bits(stored, bits)
    expected, alpha = eight[..., :colours], eight[..., colours:]
    if photometric == 0:
        expected = 255 - expected
    if photometric == 3:
        palette = numbers(seed + 1, 2**bits, 3, 1, 16)[..., 0]
        more[320] = ("H", palette.T.ravel().tolist())
        expected = (palette >> 8)[stored[..., 0]]
    if photometric == 5:
        expected = (255 - expected[..., :3]) * (255 - expected[..., 3:]) / 255
    if extra == 1:
        assume(photometric in (1, 2))
        expected = expected + 255 - alpha
    if extra == 2:
        expected = over_white(expected, alpha, 255)
    content = tiff_file(
        *(stored, bits, photometric, order),
        big=big,
        planar=planar,
        compression=compression,
        predictor=predictor,
        tile=(16, 16) if layout == "tiles" else None,
        rows=3 if layout == "strips" else None,
        more=more,
    )
    wanted = ORIENTATIONS[orientation](as_rgb(expected))
    found = shown(content)
    assert found.shape == wanted.shape
    # Of what is nearly transparent, the colours divided by alpha and times it again are rounded.
    assert np.abs(found - wanted).max() <= (3 if extra == 1 else 1)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd"])
@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_tiff_as_libtiff_packs_it(compression, predictor, mode):
    stored = numbers(3, 40, 30, 3 if mode == "RGB" else 1, 16 if mode == "I;16" else 8)
    image = Image.fromarray(stored.squeeze().astype(np.uint16 if mode == "I;16" else np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", compression=compression, tiffinfo={317: predictor, 278: 7})
    expected = to_8_bits(stored, 16 if mode == "I;16" else 8)
    assert np.array_equal(shown(buffer.getvalue()), as_rgb(expected))


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("fill_order", [1, 2])
def test_fax(compression, fill_order):
    stored = np.kron(numbers(1, 6, 5, 1, 1)[..., 0], np.ones((5, 7), int))
    buffer = io.BytesIO()
    Image.fromarray(stored.astype(bool)).save(
        buffer, "TIFF", compression=compression, tiffinfo={266: fill_order}
    )
    assert np.array_equal(shown(buffer.getvalue())[..., 0], stored * 255)


@pytest.mark.parametrize("mode", ["L", "RGB", "YCbCr", "CMYK"])
def test_jpeg_in_tiff_is_the_picture_that_libtiff_reads(mode):
    smooth = Image.fromarray(numbers(1, 6, 8, 3, 8).astype(np.uint8)).resize((80, 60))
    buffer = io.BytesIO()
    smooth.convert(mode).save(buffer, "TIFF", compression="jpeg", tiffinfo={278: 16})
    with Image.open(buffer) as image:
        assert np.array_equal(shown(buffer.getvalue()), np.asarray(image.convert("RGB")))


def test_tiff_by_another_writer():
    tifffile = pytest.importorskip("tifffile")
    for order, dtype, planar, tile in [
        ("<", np.uint8, "contig", None),
        (">", np.uint16, "separate", (16, 16)),
        ("<", np.uint16, "separate", None),
        (">", np.uint16, "contig", (16, 32)),
    ]:
        stored = numbers(1, 33, 21, 3, 8 * np.dtype(dtype).itemsize)
        given = np.moveaxis(stored, -1, 0) if planar == "separate" else stored
        buffer = io.BytesIO()
        tifffile.imwrite(
            *(buffer, given.astype(dtype)),
            photometric="rgb",
            planarconfig=planar,
            tile=tile,
            byteorder=order,
            bigtiff=tile is not None,
            compression="zlib",
            predictor=True,
        )
        assert np.array_equal(
            shown(buffer.getvalue()), to_8_bits(stored, 8 * given.astype(dtype).itemsize)
        )


GRAY = np.arange(48).reshape(6, 8)
REFUSED = {
    "signed 8": tiff_file(GRAY, 8, 1, kind=2),
    "signed 16": tiff_file(GRAY, 16, 1, kind=2),
    "float": tiff_file(GRAY, 32, 1, kind=3),
    "half": tiff_file(GRAY, 16, 1, kind=3),
    "complex": tiff_file(GRAY, 32, 1, kind=6),
    "colour of 32 bits": tiff_file(np.zeros((2, 2, 3)), 32, 2),
    "gray of 32 bits": tiff_file(GRAY + 2**20, 32, 1),
    "two grays and more": tiff_file(np.zeros((4, 4, 3)), 8, 1, more={338: ("H", [0, 0])}),
    "YCbCr of 16 bits": tiff_file(np.zeros((4, 4, 3)), 16, 6),
    "YCbCr by pairs": tiff_file(np.zeros((4, 4, 3)), 8, 6),
    "raw sensor data": tiff_file(GRAY, 16, 32803),
    "ICC Lab": tiff_file(np.zeros((4, 4, 3)), 8, 9),
    "other inks": tiff_file(np.zeros((4, 4, 4)), 8, 5, more={332: ("H", [2])}),
    "5, 6, 5 bits": tiff_file(np.zeros((4, 4, 3)), 8, 2, more={258: ("H", [5, 6, 5])}),
    "floating differences": tiff_file(GRAY, 16, 1, compression=8, more={317: ("H", [3])}),
    "another compression": tiff_file(GRAY, 8, 1, more={259: ("H", [34712])}),
    "DNG": tiff_file(GRAY, 8, 1, more={50706: ("B", [1, 4, 0, 0])}),
    "thumbnail": tiff_file(GRAY, 8, 1, more={254: ("I", [1]), 330: ("I", [8])}),
    "short palette": tiff_file(GRAY, 8, 3, more={320: ("H", [0] * 30)}),
    "strip that is short": tiff_file(GRAY, 8, 1, more={257: ("I", [9]), 278: ("I", [9])}),
    "strips that are not there": tiff_file(GRAY, 8, 1, rows=2, more={257: ("I", [60])}),
    "beyond the end": tiff_file(GRAY, 8, 1)[:20],
    "huge tiles": tiff_file(GRAY, 8, 1, more={322: ("I", [2**20]), 323: ("I", [2**20])}),
    "many samples": tiff_file(GRAY, 8, 2, more={277: ("I", [2**30])}),
    "no size": tiff_file(GRAY, 8, 1, more={256: ("I", [0])}),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_tiff_can_say_and_is_not_shown_is_refused(name):
    with pytest.raises(ImageError, match=r"^stored: ") as caught:
        load_image(Stored(REFUSED[name]))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 140


def test_a_palette_of_8_bits_where_16_belong():
    table = numbers(1, 256, 3, 1, 8)[..., 0]
    content = tiff_file(GRAY, 8, 3, more={320: ("H", table.T.ravel().tolist())})
    assert np.array_equal(shown(content), table[GRAY])


def test_the_first_bit_may_be_the_last():
    stored = numbers(1, 5, 13, 1, 1)
    assert np.array_equal(shown(tiff_file(stored, 1, 1, mirrored=True))[..., :1], stored * 255)


# ---- BMP and PPM


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("width", [1, 5, 8])
def test_bmp(width, top_down):
    stored = numbers(width, 4, width, 4, 8)
    colours = stored[..., :3]
    rgb = [row[:, ::-1].astype(np.uint8).tobytes() for row in colours]
    assert np.array_equal(shown(bmp_file(rgb, width, 4, 24, top_down=top_down)), colours)
    with_spare = [row[:, [2, 1, 0, 3]].astype(np.uint8).tobytes() for row in stored]
    assert np.array_equal(shown(bmp_file(with_spare, width, 4, 32, top_down=top_down)), colours)


@pytest.mark.parametrize("masks", [(), (0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F)])
def test_bmp_of_16_bits(masks):
    green = 6 if masks and masks[1] == 0x7E0 else 5
    stored = np.stack([numbers(i, 4, 6, 1, b)[..., 0] for i, b in enumerate((5, green, 5))], 2)
    words = stored[..., 0] << (5 + green) | stored[..., 1] << 5 | stored[..., 2]
    rows = [row.astype("<u2").tobytes() for row in words]
    found = shown(bmp_file(rows, 6, 4, 16, masks=masks, compression=3 if masks else 0))
    expected = np.stack([to_8_bits(stored[..., i], b) for i, b in enumerate((5, green, 5))], 2)
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_bmp_with_alpha(alpha):
    stored = np.dstack([numbers(1, 3, 4, 3, 8), np.full((3, 4), alpha)])
    rows = [row[:, [2, 1, 0, 3]].astype(np.uint8).tobytes() for row in stored]
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    found = shown(bmp_file(rows, 4, 3, 32, masks=masks, compression=3))
    # Where nothing at all could be seen, the fourth byte is no alpha.
    expected = over_white(stored[..., :3], stored[..., 3:], 255) if alpha else stored[..., :3]
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("bits", [4, 8])
def test_bmp_in_run_lengths(bits):
    palette = numbers(bits, 2**bits, 1, 3, 8)[:, 0]
    table = b"".join(bytes([*row[::-1].tolist(), 0]) for row in palette)
    runs = bytes([4, 0x33 if bits == 4 else 3, 3, 0x55 if bits == 4 else 5, 0, 0]) * 2 + b"\0\1"
    found = shown(bmp_file([runs], 7, 2, bits, compression=2 if bits == 4 else 1, palette=table))
    assert np.array_equal(found, np.tile(palette[[3, 3, 3, 3, 5, 5, 5]], (2, 1, 1)))


@property_test
@given(top=st.sampled_from([1, 3, 31, 255, 1023, 4095, 65535]), text=st.booleans(),
       colour=st.booleans(), **SIZES)  # fmt: skip
def test_ppm(top, text, colour, height, width, seed):
    samples = 3 if colour else 1
    stored = np.random.default_rng(seed).integers(0, top + 1, (height, width, samples))
    kind = {(False, False): 5, (True, False): 6, (False, True): 2, (True, True): 3}[colour, text]
    head = f"P{kind}\n# a comment\n{width} {height}\n{top}\n".encode()
    body = " ".join(map(str, stored.ravel())).encode()
    if not text:
        body = stored.astype(">u2" if top > 255 else np.uint8).tobytes()
    found = shown(head + body)
    assert np.abs(found - as_rgb(stored * 255 / top)).max() <= 1
    if not colour:
        expected = stored[..., 0]
        assert np.array_equal(_labels(head + body), expected)


def _labels(content: bytes) -> np.ndarray:
    return load_labels(Stored(content))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [False, True])
def test_pbm(text):
    bits = numbers(1, 3, 11, 1, 1)[..., 0]
    body = " ".join(map(str, bits.ravel())).encode()
    if not text:
        body = np.packbits(bits.astype(bool), axis=1).tobytes()
    found = shown(b"P%d 11 3\n" % (1 if text else 4) + body)
    assert np.array_equal(found[..., 0], 255 * (1 - bits))
