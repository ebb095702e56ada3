"""Compares the neighbours with SPANet at equal parameters: operations, time, export.

    PYTHONPATH=examples python -m neighbours.compare [MODEL…] [--size 224] [--rounds 15]

It prints one table for each way to run (eager, compiled, ONNX Runtime), and then says of each model
whether it exports. For accuracy, train them: docs/neighbours.md.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import neighbours
from spanets.backbones.factory import create_model, has_fixed_size
from spanets.bench.compare import compare
from spanets.bench.report import HEADER, describe_setting, table_rows
from spanets.bench.running import BACKENDS, Setting
from spanets.deploy.export import export_model
from spanets.deploy.tracing import UNWANTED
from spanets_cli.output import print_table, say
from spanets_runtime.errors import UserError, first_line
from spanets_runtime.onnx import MIN_FREE_SIDE

MODELS = ["spanet_nano", *(f"neighbour_{name}" for name in neighbours.MIXERS)]


def time_all(models: list[str], setting: Setting, size: int, batch: int, rounds: int) -> None:
    """Prints the table of one way to run; names the models that cannot be run so."""
    models = list(models)
    while models:
        try:
            result = compare(models, setting, [batch], [size], rounds=rounds)
        except UserError as error:
            # The message starts with the model's name.
            failed = [name for name in models if str(error).startswith(f"{name} ")]
            if not failed:
                raise
            say(f"{setting.backend}: {error}")
            models.remove(failed[0])
            continue
        say(describe_setting(result))
        print_table(HEADER, table_rows(result))
        return


def describe_export(name: str, size: int) -> str:
    """Returns how a model exports to ONNX (any size or one, unwanted operators), or why not."""
    import onnx

    arguments: dict[str, Any] = {"img_size": size} if has_fixed_size(name) else {}
    model = create_model(name, arguments).eval()
    free = max(size, MIN_FREE_SIDE)
    for dynamic, side, sizes in ((True, free, "any size"), (False, size, f"{size}x{size} only")):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            try:
                export_model(model, path, side, dynamic=dynamic, allow_fft=True)
            except Exception as error:  # exporters raise any kind of exception
                reason = first_line(error).removeprefix(f"{path}: ")
                continue
            slow = {node.op_type for node in onnx.load(path).graph.node} & set(UNWANTED)
        return f"{name}: ONNX, {sizes}{', with ' + ', '.join(sorted(slow)) if slow else ''}"
    return f"{name}: does not export to ONNX ({reason})"


def main() -> None:
    """Prints the tables and the lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS, help="timm names (all neighbours)")
    parser.add_argument("--size", type=int, default=224, help="image side, in pixels (224)")
    parser.add_argument("--batch", type=int, default=1, help="images at a time (1)")
    parser.add_argument("--rounds", type=int, default=15, help="measured rounds (15)")
    parser.add_argument("--backends", nargs="*", default=BACKENDS, choices=BACKENDS)
    parser.add_argument("--no-export", action="store_true", help="leave the exports out")
    arguments = parser.parse_args()
    for backend in arguments.backends:
        setting = Setting(backend=backend)
        time_all(arguments.models, setting, arguments.size, arguments.batch, arguments.rounds)
    for name in [] if arguments.no_export else arguments.models:
        say(describe_export(name, arguments.size))


if __name__ == "__main__":
    main()
