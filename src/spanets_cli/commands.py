"""One function a command: it calls the library once and prints the result."""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from spanets_cli.limits import refuse_large_batches
from spanets_cli.output import print_json, print_notes, print_table, say, say_described, tell
from spanets_runtime.text import escape_controls

DETECTOR_SIZE = 512
"""Side of the images that a detector is exported with by default; detectors take any size."""


def run_models(arguments: argparse.Namespace, _: list[str]) -> int:
    """Prints the table of models."""
    from spanets_runtime.model_table import model_table

    rows = model_table(arguments.pattern)
    if arguments.json:
        return print_json(rows)
    header = ("model", "parameters (M)", "MACs at 224² (G)", "top-1, paper (%)", "weights")
    lines = [
        (
            row["model"],
            f"{row['parameters'] / 1e6:.1f}",
            f"{row['macs'] / 1e9:.1f}",
            f"{row['top1_paper']}" if row["top1_paper"] else "",
            row["weights"] or "none",
        )
        for row in rows
    ]
    print_table(header, lines)
    return 0


def run_train(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Trains a model and prints the summary."""
    from spanets.recipe import describe_repeated, load_recipe
    from spanets_runtime.errors import require

    recipe = load_recipe(arguments.recipe, overrides, arguments.trust_recipe)
    for note in describe_repeated(overrides, type(recipe)):
        tell(note)
    if arguments.print_recipe:
        from spanets.recipe.documentation import print_recipe

        print(print_recipe(recipe), end="")
        return 0
    # A missing package must fail now, not after hours of training.
    for module in ("lightning", "torchmetrics", "tensorboard", "matplotlib"):
        require(module, "train")
    from spanets.tasks import load_task
    from spanets.training.engine import train_claimed
    from spanets.training.report import describe_results
    from spanets.training.run_folder import claim_run_folder

    with claim_run_folder(recipe, arguments.recipe, arguments.out, arguments.resume) as out:
        results = train_claimed(recipe, out, resume=arguments.resume)
    describe_metrics = load_task(recipe.task).describe_metrics
    say_described(lambda shown: describe_results(shown, describe_metrics(shown)), results)
    return 0


def run_eval(arguments: argparse.Namespace, _: list[str]) -> int:
    """Evaluates a model and prints the metrics."""
    from spanets_runtime.errors import require

    require("lightning", "train")
    from spanets.sources import open_source
    from spanets.tasks import load_task
    from spanets.training.task import EvalOptions
    from spanets.training.using import evaluate

    refuse_program(arguments.checkpoint, "eval")
    source = open_source(arguments.checkpoint)
    options = EvalOptions(
        arguments.data,
        arguments.layout,
        arguments.workers,
        arguments.batch,
        arguments.trust_recipe,
    )
    results = evaluate(source, options)
    print_notes(results.get("notes", []))
    if arguments.json:
        return print_json(results)
    say_described(load_task(source.info.task).describe_metrics, results)
    return 0


def run_predict(arguments: argparse.Namespace, _: list[str]) -> int:
    """Predicts and prints the results; returns 1 if an image could not be used."""
    from tqdm import tqdm

    from spanets_runtime.listing import gather_images

    gathered, predict = gather_images(arguments.images), make_predictor(arguments)
    print_notes(gathered.notes)
    # The printed lines already show the progress.
    hidden = None if arguments.json else True
    predictions = predict(gathered.images)
    watched = tqdm(predictions, "predict", len(gathered.images), disable=hidden, leave=False)
    found, failed = [], False
    for prediction in watched:
        if prediction.error is not None:
            failed = True
            tqdm.write(escape_controls(f"spanets: {prediction.error}"), file=sys.stderr)
            if prediction.was_read:
                found.append(prediction.to_dict())
            continue
        found.append(prediction.to_dict())
        if not arguments.json:
            say(prediction)
    if arguments.json:
        failed |= bool(print_json(found))
    return int(failed)


def make_predictor(arguments: argparse.Namespace) -> Callable[[Any], Iterator[Any]]:
    """Opens an exported model, without importing torch, or a checkpoint of any task.

    Returns:
        A function from paths of images to predictions, which have `error`, `to_dict` and `str`.
    """
    from spanets_runtime.onnx import is_exported

    refuse_program(arguments.checkpoint, "predict")
    out = None if arguments.out is None else Path(arguments.out)
    annotations = None if arguments.annotations is None else Path(arguments.annotations)
    if is_exported(arguments.checkpoint):
        from spanets_runtime.onnx_predictors import make_onnx_predictor

        return make_onnx_predictor(arguments.checkpoint, arguments.top, out, annotations)
    from spanets.sources import open_source
    from spanets.training import using
    from spanets.training.task import PredictOptions

    options = PredictOptions(arguments.top, out, arguments.score, annotations)
    return using.make_predictor(open_source(arguments.checkpoint), options)


def refuse_program(path: str, command: str) -> None:
    """Refuses a torch.export program in place of a checkpoint, because it is code."""
    from spanets_runtime.errors import UsageError

    if path.lower().endswith(".pt2"):
        raise UsageError(
            f"{path} is a torch.export program; {command} takes FILE.onnx or a checkpoint"
        )


def run_export(arguments: argparse.Namespace, _: list[str]) -> int:
    """Exports a model and prints how its outputs differ from eager PyTorch."""
    from spanets.deploy.export import export_model, load_source
    from spanets.deploy.quantize import calibration_images, calibration_transform

    model, metadata, source = load_source(
        arguments.source, arguments.weights, arguments.features_only, arguments.ema
    )
    if source.report is not None:
        tell(str(source.report))
    preprocessing = metadata["preprocessing"]
    sides = preprocessing.get("input_size") or [DETECTOR_SIZE] * 2
    height, width = arguments.size or sides[-2:]
    if arguments.static and height == width and "input_size" in preprocessing:
        preprocessing["input_size"][-2:] = [height, width]  # the only size that the file takes
    calibration = None
    if arguments.calibration is not None or arguments.dtype == "int8":
        transform = calibration_transform(source, preprocessing, not arguments.static)
    if arguments.calibration is not None:
        count = arguments.calibration_images
        calibration = calibration_images(arguments.calibration, transform, count)
    written = export_model(
        model,
        arguments.out,
        size=(height, width),
        dtype=arguments.dtype,
        dynamic=not arguments.static,
        opset=arguments.opset,
        metadata=metadata,
        calibration=calibration,
    )
    if not source.has_weights:
        tell("the weights are random: give --weights FILE or a checkpoint")
    if arguments.json:
        return print_json(written.to_dict())
    shape = ", ".join(map(str, written.inputs["images"]))
    say(f"{written.path}: {written.bytes / 1e6:.1f} MB, {written.dtype}")
    say(f"images ({shape}) -> {', '.join(written.outputs)}")
    for given, difference in written.differences.items():
        say(f"  {given}: differs from eager float32 by {difference:.1e} of the largest value")
    if written.agreement is not None:
        say(f"  same class as eager float32: {written.agreement:.1%} of the calibration images")
    return 0


def run_bench(arguments: argparse.Namespace, _: list[str]) -> int:
    """Times models and prints a table."""
    from spanets.bench.compare import compare, set_threads
    from spanets.bench.report import HEADER, describe_setting, plot, table_rows
    from spanets.bench.running import Setting
    from spanets_runtime.errors import UsageError
    from spanets_runtime.figures import check_picture

    if arguments.compile and arguments.backend not in (None, "compile"):
        raise UsageError(f"--compile does not go with --backend {arguments.backend}")
    if arguments.plot is not None:
        check_picture(arguments.plot)
    refuse_large_batches(arguments.batch, arguments.size)
    set_threads(arguments.threads)
    setting = Setting(
        arguments.dtype,
        "compile" if arguments.compile else arguments.backend or "eager",
        arguments.train,
        arguments.device,
        arguments.channels_last,
    )
    result = compare(
        arguments.models, setting, arguments.batch, arguments.size, arguments.form, arguments.rounds
    )
    status = 0
    if arguments.json:
        status = print_json(result)
    else:
        say(describe_setting(result))
        print_table(HEADER, table_rows(result))
    if arguments.plot is not None:  # last, so that an error here does not lose the numbers
        plot(result, arguments.plot)
    return status


def run_analyze(arguments: argparse.Namespace, _: list[str]) -> int:
    """Analyses models and prints where the figures are."""
    from spanets.analysis.study import Options, analyze
    from spanets_runtime.errors import require

    require("matplotlib", "analysis")  # before the models run
    refuse_large_batches([arguments.batch], [arguments.size or 0])
    options = Options(
        arguments.sites,
        arguments.profile,
        arguments.epsilon,
        arguments.frequencies,
        arguments.batch,
    )
    results = analyze(
        arguments.models,
        arguments.images,
        arguments.out,
        arguments.what,
        options,
        arguments.size,
        arguments.limit,
    )
    if arguments.json:
        return print_json(results)
    for source, row in results.items():
        for line in describe_analysis(row):
            say(f"{source} {line}")
    say(f"figures and numbers: {arguments.out}")
    return 0


def describe_analysis(row: Mapping[str, Any]) -> Iterator[str]:
    """Yields a line for each measurement of a model."""
    for name, numbers in row.get("amplitude", {}).items():
        yield f"{name}: {numbers['last']:+.2f} at the highest frequency"
    for name, numbers in row.get("response", {}).items():
        ratio = numbers["bands"]["high_pass_ratio"]
        shown = "undefined, map too small" if ratio is None else f"{ratio:.2f}"
        yield f"{name}: high-pass ratio {shown}"
    for key in ("sensitivity", "bands"):
        if key in row:
            yield f"{key}: {row[key]['images']} images, compared with {row[key]['reference']}"


def run_explain(arguments: argparse.Namespace, _: list[str]) -> int:
    """Draws a sheet and prints its path; returns 1 if an image could not be read."""
    from spanets.analysis.study.explain import explain
    from spanets_runtime.listing import gather_images

    gathered = gather_images(arguments.images)
    print_notes(gathered.notes)
    sheet, errors = explain(
        arguments.checkpoint,
        gathered.images,
        arguments.out,
        arguments.what,
        arguments.target,
        arguments.site,
    )
    for error in errors:
        tell(f"spanets: {error}")
    say(sheet)
    return int(bool(errors))


def run_push(arguments: argparse.Namespace, _: list[str]) -> int:
    """Publishes a classifier and prints what was written."""
    from spanets.deploy.publish import publish

    written = publish(
        Path(arguments.checkpoint), arguments.to, arguments.licence, arguments.message
    )
    for place in written:
        say(place)
    return 0


def run_shard(arguments: argparse.Namespace, _: list[str]) -> int:
    """Writes shards and prints their contents."""
    from spanets.data.sources.shard_writer import write_shards

    written = write_shards(arguments.folder, arguments.out, arguments.size)
    for note in written["notes"]:
        tell(note)
    if arguments.json:
        return print_json(written)
    for name, part in written["parts"].items():
        size = sum(row["bytes"] for row in part["shards"]) / 1e6
        say(f"{name}: {part['images']} images in {len(part['shards'])} shards, {size:.1f} MB")
    say(f"train from them: --data.source webdataset --data.root {shlex.quote(arguments.out)}")
    return 0


def run_runs(arguments: argparse.Namespace, _: list[str]) -> int:
    """Prints a table of runs, or, if several are named, their differences."""
    from spanets.runs.comparing import comparison_rows, find_differences, plot_runs, table_rows
    from spanets.runs.listing import choose_runs, sort_runs

    runs = choose_runs(arguments.paths)
    if arguments.sort is not None:
        runs = sort_runs(runs, arguments.sort)
    if arguments.plot is not None:
        plot_runs(runs, arguments.plot)
    compared = len(arguments.paths) > 1
    if arguments.json:
        found: dict[str, Any] = {"runs": [run.to_dict() for run in runs]}
        if compared:
            found["differences"] = find_differences(runs)
        return print_json(found)
    print_table(*(comparison_rows(runs) if compared else table_rows(runs)))
    for run in runs:
        if run.problem is not None:
            tell(f"{run.name}: {run.status}: {run.problem}")
    return 0
