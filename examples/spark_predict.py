"""Predicts images with Spark: partitions of paths go to workers, which open the model once each.

    pip install 'spanets[train]' pyspark pandas pyarrow      # and Java 17 or newer
    python examples/spark_predict.py runs/photos/last.ckpt photos --out answers

writes Parquet files into a new folder, with the columns of `spanets predict --table` for the most
likely class, in the order of the paths. For a cluster, or another number of processes, write
`spark-submit --master ...` in place of `python`; all machines must see model and images.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

import spanets
from spanets_runtime.listing import gather_images

COLUMNS = "image string, label_1 string, probability_1 double, error string"


def predict(batches: Iterator[Any], model: str) -> Iterator[Any]:
    """Yields the rows of a partition, a pandas table for each table of paths."""
    import pandas as pd

    for batch in batches:
        rows = spanets.predict_table(model, batch["path"], top=1)
        yield pd.DataFrame(rows, columns=["image", "label_1", "probability_1", "error"])


def main() -> None:
    """Reads the command line and runs the job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a classifier's checkpoint, exported file or name")
    parser.add_argument("images", nargs="+", help="image files or folders")
    parser.add_argument("--out", required=True, help="new folder for Parquet files")
    arguments = parser.parse_args()
    if Path(arguments.out).exists():
        parser.error(f"--out {arguments.out} exists; name a new folder")
    # Workers may have folders of their own, so a path must not depend on this one.
    model = Path(arguments.model).resolve() if Path(arguments.model).exists() else arguments.model
    paths = [str(Path(image).resolve()) for image in gather_images(arguments.images).images]
    spark = SparkSession.builder.getOrCreate()
    parts = 4 * spark.sparkContext.defaultParallelism
    # Sorted here and never shuffled: Spark would compute the rows a second time to sort them.
    table = spark.createDataFrame(
        spark.sparkContext.parallelize([(path,) for path in paths], parts), "path string"
    )
    rows = table.mapInPandas(partial(predict, model=str(model)), COLUMNS)
    rows.write.parquet(str(Path(arguments.out).resolve()))
    spark.stop()
    print(f"{len(paths)} images: {arguments.out}")


if __name__ == "__main__":
    main()
