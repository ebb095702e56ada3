"""A tar file is listed in bounded time and memory, whatever its headers claim."""

import io
import os
import tarfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanets.data.sources.tar_listing import list_tar
from spanets_runtime.errors import UserError

quick = settings(max_examples=40, deadline=None, database=None, derandomize=True)


def member(name: str, content: bytes = b"", **changes) -> bytes:
    """One member with its content, as bytes of a tar file; attributes may be changed."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    header = info.tobuf(tarfile.GNU_FORMAT)
    return header + content + b"\0" * (-len(content) % 512)


def header_of_size(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header that claims a size, negative ones as base-256 numbers."""
    raw = bytearray(member(name, type=kind))
    if size < 0:
        raw[124:136] = b"\xff" + (256**11 + size).to_bytes(11, "big")
    else:
        raw[124:136] = b"\x80" + size.to_bytes(11, "big")
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def pax(records: dict[str, str]) -> bytes:
    """A pax header, which overrides what the next one says."""
    lines = b""
    for key, value in records.items():
        line = f" {key}={value}\n".encode()
        length = len(line) + len(str(len(line) + 2))
        lines += f"{length}".encode() + line
    return member("pax", lines, type=tarfile.XHDTYPE)


PAIR = member("1.png", b"x") + member("1.cls", b"0")
END = bytes(1024)

HOSTILE = {
    "negative": header_of_size("1.png", -512),
    "backward": PAIR + header_of_size("2.png", -4096),
    "backward, of no known kind": PAIR + header_of_size("2.png", -4096, b"Z"),
    "a folder of negative size": PAIR + header_of_size("2", -4096, tarfile.DIRTYPE),
    "endless": header_of_size("1.png", 10**20),
    "pax negative": PAIR + pax({"size": "-2048"}) + member("2.png", b"x"),
    "pax endless": PAIR + pax({"size": "1" + "0" * 30}) + member("2.png", b"x"),
    "pax of 5000 digits": PAIR + pax({"size": "9" * 5000}) + member("2.png", b"x"),
    "pax header of negative size": PAIR + header_of_size("p", -600, tarfile.XHDTYPE),
    "pax header without end": PAIR + header_of_size("p", 10**12, tarfile.XHDTYPE),
    "long name without end": PAIR + header_of_size("p", 10**12, tarfile.GNUTYPE_LONGNAME),
    "pax on pax": pax({"comment": "x"}) * 3000 + PAIR,
    "sparse": PAIR + member("2.png", b"x" * 512, type=tarfile.GNUTYPE_SPARSE) + PAIR,
    "pax sparse": PAIR
    + pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "2.png"})
    + member("2.png", b"99999999\n" + b"0\n" * 252),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers(name, tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(HOSTILE[name] + END)
    start = time.process_time()
    try:
        found = list_tar(path)
    except UserError as error:
        assert str(error).startswith(f"{path}: ")
        assert len(str(error)) < 400
    else:  # read as what it holds
        assert found.names == ["1.png"]
    assert time.process_time() - start < 2


@quick
@given(data=st.data())
def test_changed_bytes(data, tmp_path_factory):
    """Listed or refused in one line, and no image lies outside."""
    raw = bytearray(PAIR + pax({"size": "3"}) + member("2.png", b"abc") + member("2.cls", b"1"))
    raw += END
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    path.write_bytes(raw)
    try:
        found = list_tar(path)
    except UserError:
        return
    for offset, size in zip(found.offsets, found.sizes, strict=True):
        assert 0 <= offset <= offset + size <= len(raw)


def test_as_pythons_reader(tmp_path):
    """Long names, folders, GNU's and POSIX's forms: offsets are those of tarfile."""
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / f"{form}.tar"
        with tarfile.open(path, "w", format=form) as tar:
            for i in range(5):
                folder = "größte" if form != tarfile.USTAR_FORMAT else "f"
                stem = f"{folder}/{'d' * 60}/{i:0{60 if form == tarfile.USTAR_FORMAT else 150}}"
                for ending, content in ((".png", b"p" * i), (".cls", b"%d" % i)):
                    info = tarfile.TarInfo(stem + ending)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        with tarfile.open(path) as tar:
            expected = [m for m in tar if m.name.endswith(".png")]
        found = list_tar(path)
        assert found.names == [m.name for m in expected]
        assert found.offsets == [m.offset_data for m in expected]
        assert found.sizes == [m.size for m in expected]
        assert found.labels == ["0", "1", "2", "3", "4"]


def test_links_are_counted(tmp_path):
    raw = member("0.png", type=tarfile.LNKTYPE, linkname="1.png")
    raw += member("d", type=tarfile.DIRTYPE) + member("t", type=tarfile.FIFOTYPE)
    (tmp_path / "a.tar").write_bytes(raw + PAIR + END)
    assert list_tar(tmp_path / "a.tar").links == 2


def test_what_systems_add_is_passed_over(tmp_path):
    names = ["._1.png", "__MACOSX/d/._1.png", "@eaDir/1.png/thumb.jpg", "d/Thumbs.db", ".x.cls"]
    raw = b"".join(member(name, b"x") for name in names)
    raw += member("./2.png", b"x") + member("./2.txt", b"cat")
    (tmp_path / "a.tar").write_bytes(raw + PAIR + END)
    assert list_tar(tmp_path / "a.tar").names == ["./2.png", "1.png"]


def test_one_name_twice(tmp_path):
    (tmp_path / "a.tar").write_bytes(member("1.png", b"y") + PAIR + END)
    with pytest.raises(UserError, match=r"a\.tar: holds '1\.png' twice; write it again"):
        list_tar(tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("head", "command"),
    [
        (b"\x1f\x8b\x08", "gunzip"),
        (b"BZh9", "bunzip2"),
        (b"\xfd7zXZ\0", "unxz"),
        (b"\x28\xb5\x2f\xfd", "unzstd"),
    ],
)
def test_compressed_files_are_named(head, command, tmp_path):
    (tmp_path / "a.tar").write_bytes(head + bytes(600))
    with pytest.raises(
        UserError, match=f"is compressed and has no random access; uncompress it with {command}"
    ):
        list_tar(tmp_path / "a.tar")


def test_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(UserError, match=r"a\.tar: is not a regular file"):
        list_tar(Path(tmp_path / "a.tar"))
