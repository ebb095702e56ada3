"""Images of any channels and depth are read as they were written, or refused in one line."""

import io
import struct
import zlib
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from spanets_runtime.arrays import PixelFormat, read_array, resize_channels, to_picture
from spanets_runtime.bands import find_band, refuse_other_bands, without_other_bands
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.images import ImageError, load_image
from spanets_runtime.preprocessing import Preprocessing

tifffile = pytest.importorskip("tifffile")

RNG = np.random.default_rng(0)
SEVEN = RNG.integers(0, 65536, (20, 24, 7), np.uint16)
HAS_CODECS = find_spec("imagecodecs") is not None


class Stored:
    """An image in memory."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self) -> bytes:
        return self.content

    def __str__(self) -> str:
        return "stored"


def as_tiff(array, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **{"photometric": "minisblack", **options})
    return buffer.getvalue()


def as_npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def as_pages(array) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for channel in range(array.shape[2]):
            writer.write(array[..., channel], contiguous=False, metadata=None)
    return buffer.getvalue()


CONTIG = {"planarconfig": "contig"}
FLOATS = RNG.normal(size=(20, 24, 3)).astype(np.float32)
TIFFS = {
    "pixels": (SEVEN, as_tiff(SEVEN, **CONTIG)),
    "planes": (SEVEN, as_tiff(SEVEN.transpose(2, 0, 1), planarconfig="separate")),
    "big endian": (SEVEN, as_tiff(SEVEN, byteorder=">", **CONTIG)),
    "bigtiff": (SEVEN, as_tiff(SEVEN, bigtiff=True, **CONTIG)),
    "tiles, deflate": (SEVEN, as_tiff(SEVEN, tile=(16, 16), compression="zlib", **CONTIG)),
    "strips, deflate": (SEVEN, as_tiff(SEVEN, rowsperstrip=3, compression="zlib", **CONTIG)),
    "pages": (SEVEN, as_pages(SEVEN)),
    "one channel": (SEVEN[..., :1], as_tiff(SEVEN[..., 0])),
    "bytes": ((SEVEN >> 8).astype(np.uint8), as_tiff((SEVEN >> 8).astype(np.uint8), **CONTIG)),
    "float32": (FLOATS, as_tiff(FLOATS, **CONTIG)),
    "float64": (FLOATS.astype(float), as_tiff(FLOATS.astype(float), **CONTIG)),
    "half": (FLOATS.astype(np.float16), as_tiff(FLOATS.astype(np.float16), **CONTIG)),
    "white is zero": (65535 - SEVEN[..., :1], as_tiff(SEVEN[..., 0], photometric="miniswhite")),
    "an array as pages": (SEVEN, as_tiff(SEVEN)),
    "RGB": (SEVEN[..., :3], as_tiff(SEVEN[..., :3], photometric="rgb")),
}
ARRAYS = {
    "channels last": (SEVEN, SEVEN),
    "channels first": (SEVEN, SEVEN.transpose(2, 0, 1)),
    "gray": (SEVEN[..., :1], SEVEN[..., 0]),
    "Fortran": (SEVEN, np.asfortranarray(SEVEN)),
    "big endian": (SEVEN, SEVEN.astype(">u2")),
    "float16": (FLOATS.astype(np.float16), FLOATS.astype(np.float16)),
    "bool": (SEVEN > 30000, SEVEN > 30000),
}


@pytest.mark.parametrize("name", TIFFS)
def test_tiff_is_read_as_written(name):
    expected, content = TIFFS[name]
    found = read_array(Stored(content), expected.shape[2])
    assert found.dtype == expected.dtype
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ARRAYS)
def test_npy_is_read_as_written(name):
    expected, array = ARRAYS[name]
    found = read_array(Stored(as_npy(array)), expected.shape[2])
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, expected)


def as_file(image: Image.Image, kind: str, **options) -> Stored:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Stored(buffer.getvalue())


def test_png_keeps_sixteen_bits(tmp_path):
    gray = as_file(Image.fromarray(SEVEN[..., 0]), "PNG")
    np.testing.assert_array_equal(read_array(gray, 1), SEVEN[..., :1])
    for count in (3, 4):
        content = _deep_png(SEVEN[..., :count])
        np.testing.assert_array_equal(read_array(Stored(content), count), SEVEN[..., :count])


def _deep_png(array) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width, count = array.shape
    head = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[count], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_that_of_the_rgb_path(orientation):
    image = Image.fromarray((SEVEN[..., :3] >> 8).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    for source in (
        as_file(image, "PNG", exif=exif),
        as_file(image, "TIFF", tiffinfo={274: orientation}),
    ):
        np.testing.assert_array_equal(read_array(source, 3), np.asarray(load_image(source)))


def _bomb() -> bytes:
    """A deflate strip that inflates to four thousand times its size."""
    content = as_tiff(np.zeros((20, 24), np.uint8), compression="zlib")
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        tags = tiff.pages[0].tags
        places = {name: tags[name].valueoffset for name in ("StripOffsets", "StripByteCounts")}
        kinds = {name: tags[name].dtype for name in places}
    bomb = zlib.compress(bytes(2_000_000))
    grown = bytearray(content + bomb)
    values = {"StripOffsets": len(content), "StripByteCounts": len(bomb)}
    for name, place in places.items():
        size = {3: 2, 4: 4}[int(kinds[name])]
        grown[place : place + size] = values[name].to_bytes(size, "little")
    return bytes(grown)


def _mixed_pages() -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for size in (8, 9, 8):
            writer.write(np.zeros((size, size), np.uint8), metadata=None)
    return buffer.getvalue()


NAN = FLOATS.copy()
NAN[0, 0, 0] = np.nan
REFUSED = {
    "objects": (as_npy(np.array([[None]])), "never loaded"),
    "a truncated array": (as_npy(FLOATS)[:-9], "truncated"),
    "a huge array": (as_npy(FLOATS).replace(b"(20, 24, 3)", b"(9000000, 9000000, 3)"), "."),
    "four axes": (as_npy(FLOATS[None]), "must be"),
    "complex": (as_npy(FLOATS.astype(complex)), "type complex128"),
    "text": (as_npy(np.full((20, 24, 3), "a")), "type <U1"),
    "NaN": (as_npy(NAN), "1 values that are NaN or infinite"),
    "NaN in TIFF": (as_tiff(NAN, **CONTIG), "1 values that are NaN"),
    "other channels": (as_tiff(SEVEN, **CONTIG), "has 7 channels, must have 3"),
    "pages of two sizes": (_mixed_pages(), "differ in size"),
    "other pages": (as_pages(SEVEN), "has 7 pages of 1 channels, must have 3"),
    "signed": (as_npy(SEVEN[..., :3].astype(np.int16)), "data.value_range"),
    "a truncated TIFF": (as_tiff(SEVEN[..., :3], **CONTIG)[:-99], "truncated"),
    "nothing": (b"\x93NUMPY", "truncated"),
    "a bomb": (_bomb(), "larger than its size|must have 3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name):
    content, reason = REFUSED[name]
    with pytest.raises(ImageError, match=reason) as caught:
        PixelFormat(3).read(Stored(content))
    assert str(caught.value).startswith("stored: ")
    assert "\n" not in str(caught.value)


def test_bomb_is_stopped():
    with pytest.raises(ImageError, match="larger than its size"):
        read_array(Stored(_bomb()), 1)


@pytest.mark.parametrize("name", ["pixels", "tiles, deflate", "pages", "float32"])
def test_damage_never_raises_another_error(name):
    _, content = TIFFS[name]
    for _ in range(60):
        damaged = bytearray(content)
        for place in RNG.integers(0, len(content), 3):
            damaged[place] = RNG.integers(0, 256)
        try:
            found = read_array(Stored(bytes(damaged)), 7, 10**6)
        except UserError as error:
            assert "\n" not in str(error)
        else:
            assert found.shape[2] == 7


@pytest.mark.skipif(HAS_CODECS, reason="imagecodecs reads it")
def test_compression_that_needs_codecs_is_named():
    content = as_file(Image.fromarray(SEVEN[..., 0]), "TIFF", compression="tiff_lzw")
    with pytest.raises(ImageError, match=r"LZW.*pip install 'spanets\[tiff-codecs\]'"):
        read_array(content, 1)


# ---- scaling


def test_scale():
    def scale(array, value_range=None):
        return PixelFormat(1, value_range).to_unit(array, array.dtype)

    assert scale(np.array([0, 255], np.uint8)).tolist() == [0, 1]
    assert scale(np.array([0, 65535], np.uint16)).tolist() == [0, 1]
    assert scale(np.array([-2.0, 3.5])).tolist() == [-2, 3.5]
    assert scale(np.array([False, True])).tolist() == [0, 1]
    found = scale(np.array([0, 1024, 4096, 8192], np.uint16), (0, 4096))
    assert found.tolist() == [0, 0.25, 1, 2]  # not clipped
    assert scale(np.array([-1, 0, 1], np.int16), (-1, 1)).tolist() == [0, 0.5, 1]


def preprocess_of(channels=None, **values):
    count = channels or 3
    pixels = {} if channels is None else {"channels": channels, **values}
    mean, std = [0.4, 0.5, 0.6] * 6, [0.2, 0.3, 0.25] * 6
    return Preprocessing.parse(
        {
            "input_size": [count, 32, 32],
            "crop_pct": 0.9,
            "interpolation": "bicubic",
            "mean": mean[:count],
            "std": std[:count],
            **pixels,
        },
        "x",
    )


def test_rgb_gives_the_input_of_the_rgb_path():
    pixels = RNG.integers(0, 256, (60, 44, 3), np.uint8)
    source = as_file(Image.fromarray(pixels), "PNG")
    rgb, stored = preprocess_of(), preprocess_of(3)
    assert isinstance(rgb.read(source), Image.Image)
    ours, theirs = (p.crop(p.read(source)) for p in (stored, rgb))
    assert ours.shape == theirs.shape == (32, 32, 3)
    # Pillow rounds 8-bit pixels twice, after rows and after columns, and clips in between.
    assert np.abs(ours - theirs / 255).max() < 10 / 255
    assert np.abs(ours - theirs / 255).mean() < 0.5 / 255
    smooth = np.asarray(Image.fromarray(pixels).resize((6, 6)).resize((44, 60), 3))
    source = as_file(Image.fromarray(smooth), "PNG")
    ours, theirs = (p(p.read(source)) for p in (stored, rgb))
    assert np.abs((ours - theirs) * np.array(rgb.std)[:, None, None]).max() < 1 / 255


def test_each_channel_is_resized_like_pillows_floats():
    found = resize_channels(FLOATS, (10, 8), Image.Resampling.BICUBIC)
    for channel in range(3):
        image = Image.fromarray(FLOATS[..., channel]).resize((10, 8), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(found[..., channel], np.asarray(image))


def test_integers_stay_in_their_range():
    edges = np.zeros((16, 16, 1), np.uint8)
    edges[:, 8:] = 255
    found = resize_channels(edges, (40, 40), Image.Resampling.BICUBIC)
    assert found.min() == 0
    assert found.max() == 255
    floats = resize_channels(edges.astype(np.float32), (40, 40), Image.Resampling.BICUBIC)
    assert floats.max() > 255


def test_old_metadata_are_of_rgb():
    assert preprocess_of().pixels is None
    assert preprocess_of().channels == 3
    assert preprocess_of(7).channels == 7


@pytest.mark.parametrize(
    "values",
    [
        {"channels": 0},
        {"channels": 17},
        {"channels": 2, "value_range": [1, 1]},
        {"channels": 2, "value_range": [0, float("inf")]},
        {"channels": 2, "bands": ["a"]},
        {"channels": 2, "bands": ["a", "../../b"]},
        {"channels": 2, "bands": ["a", "a"]},
    ],
)
def test_damaged_metadata_are_named(values):
    with pytest.raises(UserError, match="x: the preprocessing is damaged"):
        preprocess_of(**values)


def test_picture():
    assert to_picture(SEVEN).mode == "RGB"
    assert to_picture(SEVEN[..., :2]).size == (24, 20)
    low = (SEVEN[..., :1] >> 4).astype(np.uint16)
    assert np.asarray(to_picture(low)).max() == 255
    same = (SEVEN[..., :3] >> 8).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(to_picture(same)), same)
    assert not np.asarray(to_picture(np.full((4, 4, 1), 7.5))).any()


# ---- bands


@pytest.mark.parametrize(
    ("path", "band", "other"),
    [
        ("a/scene_B02.tif", "B02", "a/scene_B03.tif"),
        ("a/scene_B8A.tif", "B8A", "a/scene_B03.tif"),
        ("a/B02.tif", "B02", "a/B03.tif"),
        ("B02/scene.tif", "B02", "B03/scene.tif"),
        ("x/B02/y/scene.tif", "B02", "x/B03/y/scene.tif"),
        ("a/sceneB02.tif", None, None),
        ("a/scene.tif", None, None),
    ],
)
def test_names_of_bands(path, band, other):
    found = find_band(path, ["B02", "B03", "B8", "B8A"])
    assert (found and found.band) == band
    assert (found and found.path("B03")) == other


def test_bands_in_files(tmp_path):
    for number, band in enumerate(("red", "nir", "swir")):
        tifffile.imwrite(tmp_path / f"one_{band}.tif", SEVEN[..., number])
    pixels = PixelFormat(3, bands=("red", "nir", "swir"))
    first, other = tmp_path / "one_red.tif", tmp_path / "one_nir.tif"
    np.testing.assert_array_equal(pixels.read(first), SEVEN[..., :3])
    assert list(pixels.choose([first, other])) == [first]
    assert list(without_other_bands(["x.tif", "a_nir.tif"], ["red", "nir"])) == ["x.tif"]
    with pytest.raises(UsageError, match=r"one_nir.tif: is of band nir.*such as \*_red.tif"):
        list(refuse_other_bands([first, other], pixels.bands))
    with pytest.raises(ImageError, match="no file of the first band, red"):
        pixels.read(other)
    tifffile.imwrite(other, SEVEN[:10, ..., 1])
    with pytest.raises(ImageError, match=r"one_nir.tif: is 24x10 .* one_red.tif 24x20"):
        pixels.read(first)
    other.unlink()
    with pytest.raises(ImageError, match=r"one_nir.tif: no such file"):
        pixels.read(first)


def test_the_digest_is_that_of_all_bands(tmp_path):
    for scene, number in (("a", 1), ("b", 2)):
        np.save(tmp_path / f"{scene}_B1.npy", np.zeros((4, 4), np.uint8))
        np.save(tmp_path / f"{scene}_B2.npy", np.full((4, 4), number, np.uint8))
    pixels = PixelFormat(2, None, ("B1", "B2"))
    assert pixels.digest(tmp_path / "a_B1.npy") != pixels.digest(tmp_path / "b_B1.npy")
    assert len(pixels.digest(tmp_path / "a_B1.npy")) == 16
