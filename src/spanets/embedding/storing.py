"""Stores embeddings as .npz or .parquet, and reads them; a file is never half written.

Neither format holds code: an .npz is read without pickle. Vectors are written and read in blocks.
"""

import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from spanets.embedding.vectors import DIGEST_BYTES, UNLABELLED, Embeddings, Origin
from spanets_runtime.errors import UsageError, UserError, first_line, require
from spanets_runtime.files import check_place, write_atomically

SUFFIXES = (".npz", ".parquet")

_ARRAYS = ("paths", "vectors", "labels", "classes", "parts", "digests")
_FACTS = ("model", "layer", "weights", "preprocessing", "normalized", "version")

_ROWS = 2**13  # in a row group of a .parquet file

_PARTS = frozenset({"", "train", "val", "test"})


def check_out(path: str | Path) -> None:
    """Checks before any work that embeddings can be written to a path.

    Raises:
        UsageError: unknown suffix.
        UserError: missing package, or no permission.
    """
    if Path(path).suffix not in SUFFIXES:
        raise UsageError(f"--out {path}: the suffix must be {' or '.join(SUFFIXES)}")
    if Path(path).suffix == ".parquet":
        require("pyarrow.parquet", "embed")
    check_place(path)


def save_embeddings(embeddings: Embeddings, path: str | Path) -> None:
    """Writes embeddings to an .npz or .parquet file, completely or not at all.

    Raises:
        UsageError: unknown suffix.
        UserError: missing package, or the file cannot be written.
    """
    check_out(path)
    write = _write_parquet if Path(path).suffix == ".parquet" else _write_npz
    write_atomically(path, lambda file: write(embeddings, file))


def load_embeddings(path: str | Path) -> Embeddings:
    """Reads a file of `save_embeddings`.

    Raises:
        UsageError: unknown suffix.
        UserError: missing package, or the file is missing, damaged or not from `save_embeddings`.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UsageError(f"--from {path}: the suffix must be {' or '.join(SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.suffix == ".parquet":
        require("pyarrow.parquet", "embed")
    try:
        found = _read_parquet(path) if path.suffix == ".parquet" else _read_npz(path)
        _check(found)
    except OSError as error:  # pyarrow's for damaged files have no number
        if error.errno is not None:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        raise UserError(f"{path}: {_damaged(error)}") from error
    # NotImplementedError and RuntimeError: zipfile's for what it cannot unpack, such as encryption.
    except (ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: {_damaged(error)}") from error
    return found


def _damaged(error: Exception) -> str:
    return f"damaged, or not a file of `spanets embed` ({first_line(error)})"


def _check(embeddings: Embeddings) -> None:
    """Raises ValueError if the parts of a file do not fit together."""
    count = len(embeddings.vectors)
    if embeddings.vectors.ndim != 2 or embeddings.vectors.dtype != np.float32 or not count:
        raise ValueError("the vectors are not (images, numbers) in float32")
    if embeddings.digests.shape != (count, DIGEST_BYTES) or embeddings.labels.shape != (count,):
        raise ValueError("the digests or labels do not fit the vectors")
    if not len(embeddings.paths) == len(embeddings.parts) == count:
        raise ValueError("the paths or parts do not fit the vectors")
    if embeddings.labels.min() < UNLABELLED or embeddings.labels.max() >= len(embeddings.classes):
        raise ValueError("a label is no index of the classes")
    if unknown := set(embeddings.parts) - _PARTS:
        raise ValueError(f"the part {min(unknown)!r} is unknown")


# ---- .npz


def _write_npz(embeddings: Embeddings, file: BinaryIO) -> None:
    origin = vars(embeddings.origin)
    facts = {**origin, "preprocessing": json.dumps(origin["preprocessing"])}
    arrays = {
        "paths": np.array(embeddings.paths, dtype=np.str_),
        "vectors": embeddings.vectors,
        "labels": embeddings.labels,
        "classes": np.array(embeddings.classes, dtype=np.str_),
        "parts": np.array(embeddings.parts, dtype="U5"),
        "digests": embeddings.digests,
        **{name: np.array(facts[name]) for name in _FACTS},
    }
    np.savez(file, allow_pickle=False, **arrays)


def _read_npz(path: Path) -> Embeddings:
    with zipfile.ZipFile(path) as archive:
        for name in (*_ARRAYS, *_FACTS):
            _check_member(archive, f"{name}.npy")
    with np.load(path, allow_pickle=False) as stored:
        facts = {name: stored[name].item() for name in _FACTS}
        arrays = {name: stored[name] for name in _ARRAYS}
    return Embeddings(
        paths=arrays["paths"].tolist(),
        vectors=arrays["vectors"],
        labels=arrays["labels"].astype(np.int32, casting="same_kind"),
        classes=arrays["classes"].tolist(),
        parts=arrays["parts"].tolist(),
        digests=arrays["digests"].astype(np.uint8, casting="same_kind"),
        origin=_read_origin(facts),
    )


def _check_member(archive: zipfile.ZipFile, name: str) -> None:
    """Raises ValueError if an array would take more memory than its file is large."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    with archive.open(entry) as file:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize > entry.file_size:
            raise ValueError(f"{name} holds objects or ends early")


def _read_origin(facts: Mapping[str, Any]) -> Origin:
    texts = {name: str(facts[name]) for name in ("model", "layer", "weights", "version")}
    preprocessing = facts["preprocessing"]
    if isinstance(preprocessing, str):
        preprocessing = json.loads(preprocessing)
    return Origin(**texts, preprocessing=dict(preprocessing), normalized=bool(facts["normalized"]))


# ---- .parquet

_METADATA = b"spanets"


def _write_parquet(embeddings: Embeddings, file: BinaryIO) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    facts = {**vars(embeddings.origin), "classes": embeddings.classes}
    schema = pa.schema(
        [
            ("path", pa.string()),
            ("label", pa.string()),
            ("part", pa.string()),
            ("digest", pa.binary(DIGEST_BYTES)),
            ("vector", pa.list_(pa.float32(), embeddings.dimensions)),
        ],
        metadata={_METADATA: json.dumps(facts)},
    )
    sink, repeated = pa.PythonFile(file, mode="w"), ["label", "part"]
    with pq.ParquetWriter(sink, schema, use_dictionary=repeated) as writer:
        for first in range(0, len(embeddings), _ROWS):
            rows = range(first, min(first + _ROWS, len(embeddings)))
            writer.write_table(pa.table(list(_columns(embeddings, rows)), schema=schema))


def _columns(embeddings: Embeddings, rows: range) -> Iterator[Any]:
    import pyarrow as pa

    here = slice(rows.start, rows.stop)
    yield pa.array(_storable(embeddings.paths[here]), pa.string())
    yield pa.array([embeddings.label_of(row) or None for row in rows], pa.string())
    yield pa.array([part or None for part in embeddings.parts[here]], pa.string())
    digests = [row.tobytes() for row in embeddings.digests[here]]
    yield pa.array(digests, pa.binary(DIGEST_BYTES))
    numbers = pa.array(np.ascontiguousarray(embeddings.vectors[here]).reshape(-1))
    yield pa.FixedSizeListArray.from_arrays(numbers, embeddings.dimensions)


def _storable(paths: list[str]) -> list[str]:
    """Returns paths as they are; refuses one that is no Unicode text, which Parquet cannot store.

    Raises:
        UserError: a file name has other bytes.
    """
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"{path!r}: its name is not valid UTF-8, which .parquet cannot store; rename it, "
                "or write .npz"
            ) from None
    return paths


def _read_parquet(path: Path) -> Embeddings:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Read ahead, all row groups would be in memory beside the vectors.
    with pq.ParquetFile(path, pre_buffer=False) as stored:
        schema = stored.schema_arrow
        facts = json.loads((schema.metadata or {})[_METADATA])
        kind, count = schema.field("vector").type, stored.metadata.num_rows
        if not pa.types.is_fixed_size_list(kind):
            raise ValueError("the vectors are not lists of one length")
        vectors = np.empty((count, kind.list_size), np.float32)
        columns: dict[str, list[Any]] = {"path": [], "label": [], "part": [], "digest": []}
        first = 0
        for batch in stored.iter_batches(_ROWS):
            numbers = batch.column("vector").flatten().to_numpy()
            vectors[first : first + len(batch)] = numbers.reshape(len(batch), -1)
            for name, values in columns.items():
                values += batch.column(name).to_pylist()
            first += len(batch)
    return Embeddings(
        paths=columns["path"],
        vectors=vectors,
        labels=_number(columns["label"], facts["classes"]),
        classes=[str(name) for name in facts["classes"]],
        parts=[part or "" for part in columns["part"]],
        digests=np.frombuffer(b"".join(columns["digest"]), np.uint8).reshape(-1, DIGEST_BYTES),
        origin=_read_origin(facts),
    )


def _number(labels: list[str | None], classes: list[str]) -> NDArray[np.int32]:
    numbers: dict[str | None, int] = {name: i for i, name in enumerate(classes)}
    numbers[None] = UNLABELLED
    return np.array([numbers[label] for label in labels], dtype=np.int32)
