"""Predicts images with Ray Data: blocks of paths go to workers, each of which opens the model once.

    pip install 'spanets[train]' 'ray[data]'
    python examples/ray_predict.py runs/photos/last.ckpt photos --out answers --workers 4 [--gpus 1]

writes Parquet files into a new folder, with the columns of `spanets predict --table`, in the order
of the list. For a cluster, start Ray there, and put model and images where all machines see them.
"""

import argparse
from pathlib import Path
from typing import Any

import ray

import spanets
from spanets_runtime.listing import gather_images


def predict(batch: dict[str, Any], model: str) -> dict[str, list[Any]]:
    """Returns the rows of a block of paths, as columns."""
    rows = list(spanets.predict_table(model, batch["path"]))
    return {name: [row[name] for row in rows] for name in rows[0]}


def main() -> None:
    """Reads the command line and runs the job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a checkpoint, an exported file or a model's name")
    parser.add_argument("images", nargs="+", help="image files or folders")
    parser.add_argument("--out", required=True, help="new folder for Parquet files")
    parser.add_argument("--workers", type=int, default=2, help="processes, one model each")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of a worker, such as 1 or 0.5")
    arguments = parser.parse_args()
    if Path(arguments.out).exists():
        parser.error(f"--out {arguments.out} exists; name a new folder")
    # Workers have folders of their own, so a path must not depend on this one.
    model = Path(arguments.model).resolve() if Path(arguments.model).exists() else arguments.model
    paths = [str(Path(image).resolve()) for image in gather_images(arguments.images).images]
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    rows = ray.data.from_items([{"path": path} for path in paths]).map_batches(
        predict,
        fn_kwargs={"model": str(model)},
        batch_size=64,
        compute=ray.data.TaskPoolStrategy(size=arguments.workers),
        num_gpus=arguments.gpus,
    )
    rows.write_parquet(str(Path(arguments.out).resolve()))
    print(f"{len(paths)} images: {arguments.out}")


if __name__ == "__main__":
    main()
