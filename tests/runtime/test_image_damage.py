"""Files that hold less than they claim, bombs, and files of other kinds: refused in one line."""

import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from image_files import png_chunk, png_file
from PIL import Image, features

from spanets_runtime.decoding import formats
from spanets_runtime.decoding.decoded import MAX_PIXELS
from spanets_runtime.images import ImageError, load_image

NOISE = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
SMOOTH = Image.fromarray(NOISE).resize((160, 120), Image.Resampling.BICUBIC)


class Stored:
    """An image in memory."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self) -> bytes:
        return self.content

    def __str__(self) -> str:
        return "stored"


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def shown(content: bytes) -> np.ndarray:
    return np.asarray(load_image(Stored(content)))


def refused(content: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(Stored(content))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("stored: ")
    return message.removeprefix("stored: ")


# ---- JPEG

JPEGS = {
    "baseline": {},
    "fine": {"quality": 95, "subsampling": 0},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 2},
    "many restarts": {"restart_marker_blocks": 3},
    "progressive with restarts": {"progressive": True, "restart_marker_rows": 4},
}
CUT = "truncated or corrupt image (its data end before its last pixels)"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", list(JPEGS))
def test_a_whole_jpeg_is_what_pillow_reads(kind, mode):
    content = encoded(SMOOTH.convert(mode), "JPEG", **JPEGS[kind])
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image.convert("RGB"))
    for whole in (content, content + b"trailing" * 99, content[:-2]):  # the last without an end
        assert np.array_equal(shown(whole), expected)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
@pytest.mark.parametrize("kind", list(JPEGS))
def test_a_jpeg_whose_data_end_early_is_refused(kind, end, share):
    """libjpeg would fill the rest with gray, and Pillow would not tell."""
    content = encoded(SMOOTH, "JPEG", **JPEGS[kind])
    start = content.index(b"\xff\xda")
    cut = content[: start + int(share * (len(content) - start))]
    assert "truncated or corrupt image" in refused(cut.removesuffix(b"\xff") + end)


def test_a_jpeg_that_lacks_a_restart_interval_is_refused():
    content = encoded(SMOOTH, "JPEG", restart_marker_rows=2)
    first, second = content.index(b"\xff\xd1"), content.index(b"\xff\xd2")
    assert refused(content[:first] + content[second:]) == CUT


def test_a_progressive_jpeg_that_lacks_scans_and_its_end_is_refused():
    content = encoded(SMOOTH, "JPEG", progressive=True)
    scans = [i for i in range(len(content)) if content[i : i + 2] in (b"\xff\xda", b"\xff\xc4")]
    assert refused(content[: scans[-2]]) == CUT


@pytest.mark.parametrize(
    ("marker", "bits", "said"),
    [(0xC3, 8, "lossless"), (0xC9, 8, "arithmetic"), (0xC5, 8, "hierarchical"), (0xC1, 12, "12")],
)
def test_rare_kinds_of_jpeg_are_named(marker, bits, said):
    content = bytearray(encoded(SMOOTH, "JPEG"))
    place = content.index(b"\xff\xc0")
    content[place + 1], content[place + 4] = marker, bits
    assert said in refused(bytes(content))


def test_a_jpeg_of_thousands_of_scans_is_refused():
    content = encoded(Image.new("L", (8, 8)), "JPEG", progressive=True)
    start = content.index(b"\xff\xda")
    assert "more than 500 scans" in refused(content[:start] + content[start:-2] * 300)


def test_the_decoder_of_pillow_is_where_it_was():
    """A name of its own that the reader of JPEG uses."""
    assert callable(Image._getdecoder)


# ---- PNG

GRAY = np.full((9, 7), 200)
ROWS = [b"\0" + bytes([200] * 7)] * 9


@pytest.mark.parametrize("rows", [0, 1, 8])
def test_a_png_of_fewer_rows_is_refused(rows):
    """zlib has it that all is there; Pillow would leave the rest black."""
    content = png_file(GRAY, 8, 0, packed=zlib.compress(b"".join(ROWS[:rows])))
    assert "truncated or corrupt image" in refused(content)


def test_a_png_that_ends_black_is_read():
    stored = np.zeros((5, 6))
    stored[0] = 1
    for interlaced in (False, True):
        assert np.array_equal(shown(png_file(stored, 1, 0, interlaced))[..., 0], stored * 255)


def test_the_checksum_of_what_the_picture_needs_counts():
    content = bytearray(png_file(GRAY, 8, 0))
    content[content.index(b"IEND") - 5] ^= 1  # the last byte of IDAT's checksum
    assert refused(bytes(content)).endswith("(the checksum of its IDAT is wrong)")
    palette = png_chunk(b"PLTE", bytes(768), wrong=1)
    assert "the checksum of its PLTE" in refused(png_file(GRAY, 8, 3, before=palette))


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"zTXt", b"Raw\0\0" + zlib.compress(b"a" * 3_000_000)),
        png_chunk(b"iTXt", b"prompt\0\1\0\0\0" + zlib.compress(b"a" * 3_000_000)),
        png_chunk(b"tEXt", b"key\0" + b"a" * 3_000_000),
        png_chunk(b"iCCP", b"P3\0\0" + zlib.compress(os.urandom(1_200_000))),
        png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"a" * 3_000_000)),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"a" * 3_000_000)),
        png_chunk(b"eXIf", b"garbage"),
        png_chunk(b"tRNS", bytes(1), wrong=1),
        png_chunk(b"tEXt", b"key\0text", wrong=1),
        png_chunk(b"acTL", bytes(8)),
        png_chunk(b"sBIT", b"\x08" * 9),
    ],
    ids=lambda chunk: chunk[4:8].decode(),
)
@pytest.mark.parametrize("place", ["before", "after"])
def test_ancillary_chunks_cost_no_png(chunk, place):
    assert (shown(png_file(GRAY, 8, 0, **{place: chunk})) == 200).all()


def test_a_png_without_its_end_or_with_more_after_it():
    content = png_file(GRAY, 8, 0)
    for whole in (content[:-12], content[:-8], content + bytes(9999)):
        assert (shown(whole) == 200).all()


def test_chunks_that_would_change_the_picture_are_refused():
    assert "CgBI" in refused(png_file(GRAY, 8, 0, before=png_chunk(b"CgBI", bytes(4))))
    huge = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0))
    assert "a second header" in refused(png_file(GRAY, 8, 0, before=huge))
    more = png_chunk(b"IDAT", bytes(3_000_000))
    assert "more data than pixels" in refused(png_file(GRAY, 8, 0, after=more))


# ---- other formats


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "PPM", "WEBP", "AVIF", "JPEG2000"])
def test_what_is_cut_is_refused(form):
    if form in ("AVIF", "JPEG2000") and formats.missing_reader(form):
        pytest.skip(f"no reader for {form} here")
    content = encoded(Image.fromarray(NOISE), form)
    for share in (0.3, 0.7, 0.95):
        assert "truncated or corrupt" in refused(content[: int(share * len(content))])


def test_a_first_frame_smaller_than_its_canvas_lies_on_white():
    content = bytearray(encoded(Image.new("P", (4, 3), 0), "GIF"))
    content[6:10] = struct.pack("<HH", 9, 5)
    found = shown(bytes(content))
    assert found.shape == (5, 9, 3)
    assert (found[:3, :4] == 0).all()
    assert (found[3:] == 255).all() and (found[:, 4:] == 255).all()


def webp_header(width: int, height: int, extended: bool) -> bytes:
    if extended:
        sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + sides
    else:
        size = struct.pack("<I", (width - 1) | (height - 1) << 14)
        body = b"VP8L" + struct.pack("<I", 10) + b"\x2f" + size + bytes(5)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


@pytest.mark.parametrize("extended", [False, True])
def test_the_canvas_of_webp_is_checked_before_memory_is_taken_for_it(monkeypatch, extended):
    monkeypatch.setattr(Image, "open", lambda *a, **k: pytest.fail("opened"))
    said = refused(webp_header(16383, 16383, extended))
    assert said == f"16383x16383 pixels is over the limit of WEBP of {MAX_PIXELS // 2} pixels"


BOMB = """
import resource, sys
from spanets_runtime.images import ImageError, load_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        load_image(path)
    except ImageError:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's count of memory")
def test_small_files_take_little_memory(tmp_path):
    rows = struct.pack(">IIBBBBB", 1000, 1000, 8, 2, 0, 0, 0)
    zeros = zlib.compress(bytes(30_000_000))
    files = [
        webp_header(16383, 16383, False),
        webp_header(16383, 16383, True),
        png_file(GRAY, 8, 0, before=png_chunk(b"zTXt", b"Raw\0\0" + zeros)),
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", rows) + png_chunk(b"IDAT", zeros),
    ]
    paths = [tmp_path / str(number) for number in range(len(files))]
    for path, content in zip(paths, files, strict=True):
        path.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", BOMB, *paths], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 25_000  # kilobytes


# ---- formats that are read here or named


@pytest.mark.parametrize("form", ["AVIF", "JPEG2000"])
def test_newer_formats_are_read_where_pillow_can(form):
    if formats.missing_reader(form):
        pytest.skip(f"no reader for {form} here")
    options = {"quality": 100, "subsampling": "4:4:4"} if form == "AVIF" else {}
    found = shown(encoded(SMOOTH, form, **options)).astype(int)
    assert np.abs(found - np.asarray(SMOOTH)).max() <= (4 if form == "AVIF" else 0)
    found = shown(encoded(Image.new("LA", (8, 8), (0, 0)).convert("RGBA"), form))
    assert (found == 255).all()


@pytest.mark.skipif(not features.check("jpg_2000"), reason="Pillow without OpenJPEG")
def test_jpeg_2000_of_16_bits():
    numbers = np.random.default_rng(0).integers(0, 65536, (20, 30)).astype(np.uint16)
    assert np.array_equal(
        shown(encoded(Image.fromarray(numbers), "JPEG2000"))[..., 0], numbers >> 8
    )


@pytest.mark.skipif(not features.check("jpg_2000"), reason="Pillow without OpenJPEG")
@pytest.mark.parametrize(("bits", "said"), [(12, "12 bits"), (4, "4 bits"), (0x80 | 8, "a sign")])
def test_jpeg_2000_that_pillow_shows_wrong_is_refused(bits, said):
    content = bytearray(encoded(SMOOTH, "JPEG2000"))
    place = content.index(b"\xff\x4f\xff\x51") + 4 + 38
    for component in range(3):
        content[place + 3 * component] = (bits & 0x7F) - 1 | bits & 0x80
    assert said in refused(bytes(content))
    near_infrared = encoded(SMOOTH.convert("RGBA"), "JPEG2000", no_jp2=True)
    assert "4 components" in refused(near_infrared)


def test_heic_is_read_with_the_plug_in():
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(SMOOTH).save(buffer, quality=100, chroma=444)
    found = shown(buffer.getvalue()).astype(int)
    assert np.abs(found - np.asarray(SMOOTH)).max() <= 12
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = heif.from_pillow(SMOOTH)
    turned.save(buffer := io.BytesIO(), exif=exif.tobytes())
    assert shown(buffer.getvalue()).shape == (160, 120, 3)


def test_a_format_that_needs_something_says_what(monkeypatch):
    head = b"\0\0\0\x18ftypheic" + bytes(99)
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    said = refused(head)
    assert said == "a HEIC or HEIF image, which is read after: pip install 'spanets[images]'"
    monkeypatch.setattr(formats.features, "check", lambda name: False)
    assert "which needs Pillow" in refused(b"\0\0\0\x18ftypavif" + bytes(99))
    assert "built with OpenJPEG" in refused(b"\xff\x4f\xff\x51" + bytes(99))


NAMED = {
    "an ICO": encoded(SMOOTH, "ICO"),
    "a TGA": encoded(SMOOTH, "TGA"),
    "a PCX": encoded(SMOOTH, "PCX"),
    "a DDS": encoded(SMOOTH, "DDS"),
    "an SGI": encoded(SMOOTH, "SGI"),
    "a QOI": b"qoif" + bytes(99),
    "a PSD": b"8BPS\0\1" + bytes(99),
    "a PFM": b"Pf\n8 8\n-1.0\n" + bytes(256),
    "a PAM": b"P7\nWIDTH 8\n",
    "a JPEG XL": b"\xff\x0a\xfa\x7f",
    "an OpenEXR": b"\x76\x2f\x31\x01" + bytes(9),
    "an HDR": b"#?RADIANCE\n",
    "an SVG": b'<?xml version="1.0"?>\n<!-- a -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "an HTML page": b"\n<!doctype HTML><title>404</title>",
    "an XML": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "a JSON": b'{"error": "not found"}',
    "a PDF": b"%PDF-1.7\n",
    "a PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "a DICOM": bytes(128) + b"DICM" + bytes(99),
    "a FITS": b"SIMPLE  =                    T",
    "a NumPy": b"\x93NUMPY\1\0",
    "an HDF5": b"\x89HDF\r\n\x1a\n",
    "a raw photograph": b"II*\0\x10\0\0\0CR\2\0" + bytes(99),
    "a video": b"\0\0\0\x20ftypisom" + bytes(99),
    "an archive": b"PK\3\4" + bytes(99),
    "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "a git-annex pointer": b"/annex/objects/SHA256E-s9--0.jpg\n",
    "a file of macOS": b"\0\5\x16\7" + bytes(99),
}


@pytest.mark.parametrize("name", list(NAMED))
def test_other_files_are_named_for_what_they_are(name):
    said = refused(NAMED[name])
    assert said.startswith(name)
    assert "; " in said  # with what to do
