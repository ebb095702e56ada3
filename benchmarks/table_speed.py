"""Measures time and memory of opening a table of a million images, on the CPU.

    python benchmarks/table_speed.py [--rows 1000000] [--folder DIR]

The table has columns for path, label, group and weight, and its (empty) image files lie in 1,000
folders, so that their existence is checked as in a real data set. Each format and division is
opened in its own process. Its peak resident memory is reported, and how much of it was there before
the table was opened: torch and other libraries alone are 0.7 GiB.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

NAME = "table_speed"
LIMITS = {"seconds": 20, "bytes": 2**30}
CASES = {
    "csv": {"suffix": "csv", "columns": {"group": None, "weight": None}},
    "csv, groups and weights": {"suffix": "csv"},
    "csv, five folds by group": {"suffix": "csv", "folds": 5, "fold": 2},
    "jsonl": {"suffix": "jsonl", "columns": {"group": None, "weight": None}},
    "parquet": {"suffix": "parquet", "columns": {"group": None, "weight": None}},
}


def main() -> None:
    """Measures and writes results/table_speed.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="folder for the files (default: a temporary)")
    parser.add_argument("--one", choices=CASES, help="measure only this and print it")
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(measure(arguments.one, arguments.folder)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        make_table(Path(folder), arguments.rows)
        rows = {}
        for name in CASES:
            command = [sys.executable, __file__, "--folder", folder, "--one", name]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows[name] = json.loads(done.stdout)
    from common import write

    write(NAME, {"rows": arguments.rows, "limits": LIMITS, "cases": rows})


def make_table(folder: Path, rows: int) -> None:
    """Writes the table in each format, and an empty file for each row."""
    import pyarrow.csv
    import pyarrow.parquet

    places = [(f"photos/{i % 1000:03}/image_{i:07}.jpg", i) for i in range(rows)]
    for number in range(min(rows, 1000)):
        (folder / f"photos/{number:03}").mkdir(parents=True)
    for path, _ in places:
        (folder / path).touch()
    header = ["path", "label", "group", "weight"]
    made = [(path, f"class {i % 997 % 100}", f"g{i // 10}", 1 + i % 3) for path, i in places]
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *made])
    with (folder / "labels.jsonl").open("w") as file:
        file.writelines(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in made)
    table = pyarrow.csv.read_csv(folder / "labels.csv")
    pyarrow.parquet.write_table(table, folder / "labels.parquet")


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Returns the seconds to open a table, without imports, and the peak memory of this process."""
    from spanets.classification.recipe import ClassificationData
    from spanets.data.image_level.splits import read_splits

    settings = dict(CASES[name])
    root = str(folder / f"labels.{settings.pop('suffix')}")
    before = peak()
    started, used = perf_counter(), process_time()
    parts = read_splits(ClassificationData(root=root, **settings))
    seconds = perf_counter() - started
    row = {"seconds": round(seconds, 2), "cpu_seconds": round(process_time() - used, 2)}
    row |= {"peak_bytes": peak(), "imports_bytes": before, "added_bytes": peak() - before}
    row["under_limits"] = seconds < LIMITS["seconds"] and row["added_bytes"] < LIMITS["bytes"]
    return row | {part: len(samples) for part, samples in parts.items()}


def peak() -> int:
    """Returns the peak resident memory of this process in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB on Linux


if __name__ == "__main__":
    main()
