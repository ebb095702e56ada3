"""The command line: each subcommand parses its words and makes one call into the library.

This module lies beside the package, not in it: importing `spanets` brings torch and timm, which
takes seconds, and `--help` has to answer at once. The library is imported once a command is known.
"""

import argparse
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

TRAIN_KEYS = """\
Every key of the recipe can be set: --section.key VALUE, for example
  spanets train elpv --trainer.epochs 5 --model.name resnet18
  spanets train elpv --data.source folder --data.root photos --data.image_size 224
sections: model, data, optim, trainer; `--print-recipe` shows all keys with their values.
"""

COMMANDS = ("models", "train", "eval", "predict", "export", "bench", "analyze", "explain")

MODEL_SOURCES = "timm's names, checkpoints, or module:function of your own"

# The words of `train` that are no keys of a recipe, and whether a value follows.
TRAIN_OPTIONS = {
    "--out": True,
    "--resume": False,
    "--print-recipe": False,
    "--debug": False,
    "--help": False,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status: 0, 1 for a failed run, 2 for a usage error."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    overrides: list[str] = []
    if words[:1] == ["train"]:
        words, overrides = split_overrides(words)
    try:
        check_command(words)
        known = make_parser().parse_args(words)
    except SystemExit as leaving:  # --help, or a message is printed
        return int(leaving.code or 0)
    try:
        status = run(known, overrides)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("spanets: stopped", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader, such as `head`, has enough; Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def run(known: argparse.Namespace, overrides: list[str]) -> int:
    """Runs a parsed command, and says in one line what is wrong with what the user gave."""
    from spanets_runtime.errors import UserError

    if known.command in ("train", "eval"):
        leave_cores_to_workers()
    try:
        return known.run(known, overrides)
    except Exception as error:
        message, status = str(error), getattr(error, "exit_status", 1)
        if is_full_gpu(error):
            message = "the GPU's memory is full; train with a larger trainer.accumulate or a "
            message += "smaller optim.batch_size, evaluate with a smaller --batch"
        elif not isinstance(error, UserError):
            raise
        if known.debug:
            traceback.print_exc()
        print(f"spanets: {message}", file=sys.stderr)
        return status


def is_full_gpu(error: Exception) -> bool:
    """Tells whether a GPU's memory is exhausted, without importing torch where nothing has."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def check_command(words: Sequence[str]) -> None:
    """Exits if the first word is no command, telling the nearest one."""
    if not words or words[0].startswith("-") or words[0] in COMMANDS:
        return
    close = get_close_matches(words[0], COMMANDS, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(COMMANDS)}"
    Parser(prog="spanets").error(f"unknown command {words[0]!r}{hint}")


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Parts the words of `train` into its own and those that set keys, wherever they stand."""
    own: list[str] = []
    overrides: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, equals, _ = word.partition("=")
        target = overrides if word.startswith("--") and option not in TRAIN_OPTIONS else own
        target.append(word)
        takes_value = word.startswith("--") and TRAIN_OPTIONS.get(option, True) and not equals
        if takes_value and rest and not rest[0].startswith("--"):
            target.append(rest.pop(0))
    return own, overrides


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, where argparse prints its usage as well."""

    def error(self, message: str) -> NoReturn:
        """Prints the line and exits with status 2."""
        self.exit(2, f"spanets: {message} (see {self.prog} --help)\n")


def make_parser() -> Parser:
    """Describes all commands; imports nothing."""
    common = Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = Parser(
        prog="spanets",
        description="SPANet and SPANetV2: train, evaluate and use frequency-balancing backbones.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, run: Any, help: str, **more: Any) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=help,
            description=help[0].upper() + help[1:] + ".",
            parents=[common],
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **more,
        )
        sub.set_defaults(run=run)
        return sub

    models = command("models", run_models, "list the models: size, cost, published accuracy")
    models.add_argument("pattern", nargs="?", default="", help="shell pattern, such as '*small*'")
    models.add_argument("--json", action="store_true", help="print JSON")

    train = command("train", run_train, "train by a recipe", epilog=TRAIN_KEYS)
    train.add_argument("recipe", help="a recipe's name, such as elpv, or a YAML file")
    train.add_argument("--out", metavar="DIR", help="run folder (default: a free runs/RECIPE)")
    train.add_argument("--resume", action="store_true", help="go on from DIR's last checkpoint")
    train.add_argument(
        "--print-recipe", action="store_true", help="print all keys and values, and stop"
    )

    evaluate = command("eval", run_eval, "measure a checkpoint on labelled images")
    evaluate.add_argument("checkpoint")
    evaluate.add_argument(
        "--data", metavar="DIR", help="class folders (default: the checkpoint's test images)"
    )
    evaluate.add_argument("--batch", type=at_least(1), default=64, help="images at a time")
    evaluate.add_argument(
        "--workers", type=at_least(0), default=2, help="processes that load images"
    )
    evaluate.add_argument("--json", action="store_true", help="print JSON")

    predict = command("predict", run_predict, "label images")
    predict.add_argument("checkpoint", metavar="CHECKPOINT|FILE.onnx")
    predict.add_argument("images", nargs="+", metavar="IMAGE", help="files, or folders of files")
    predict.add_argument(
        "--top", type=at_least(1), default=5, help="classes for each image (default: 5)"
    )
    predict.add_argument("--json", action="store_true", help="print JSON")

    export = command("export", run_export, "write a model for other runtimes, and check it")
    export.add_argument("source", metavar="MODEL|CHECKPOINT")
    export.add_argument("--out", required=True, metavar="FILE", help="FILE.onnx or FILE.pt2")
    export.add_argument("--weights", metavar="FILE", help="weights for a MODEL (default: random)")
    export.add_argument("--features-only", action="store_true", help="maps in place of logits")
    export.add_argument(
        "--size", type=at_least(32), help="image side to trace with (default: the model's)"
    )
    export.add_argument("--static", action="store_true", help="fix batch size, height and width")
    export.add_argument("--dtype", default="float32", help="float32, float16 or int8")
    export.add_argument("--calibration", metavar="DIR", help="images that tell int8 its ranges")
    export.add_argument(
        "--calibration-images", type=at_least(1), default=128, help="so many of them (default: 128)"
    )
    export.add_argument("--opset", type=int, default=20, help="of ONNX (default: 20)")
    export.add_argument("--json", action="store_true", help="print JSON")

    bench = command("bench", run_bench, "time models side by side: any of timm's beside ours")
    bench.add_argument("models", nargs="+", metavar="MODEL")
    bench.add_argument("--batch", type=at_least(1), nargs="+", default=[1], help="(default: 1)")
    bench.add_argument("--size", type=at_least(32), nargs="+", default=[224], help="(default: 224)")
    bench.add_argument("--form", nargs="+", default=["default"], help="default, fft, or both")
    bench.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16")
    bench.add_argument("--backend", default="eager", help="eager, compile or onnx")
    bench.add_argument("--compile", action="store_true", help="as --backend compile")
    bench.add_argument("--train", action="store_true", help="training steps, not inference")
    bench.add_argument("--device", default="cpu", help="cpu, cuda, … (default: cpu)")
    bench.add_argument("--channels-last", action="store_true", help="lay weights and images out so")
    bench.add_argument("--threads", type=at_least(1), help="of the CPU (default: torch's choice)")
    bench.add_argument("--rounds", type=at_least(1), default=15, help="(default: 15)")
    bench.add_argument("--plot", metavar="FILE", help="draw the times: FILE.png, .svg or .pdf")
    bench.add_argument("--json", action="store_true", help="print JSON")

    analyze = command("analyze", run_analyze, "measure what models do to frequencies")
    analyze.add_argument("models", nargs="+", metavar="MODEL", help=MODEL_SOURCES)
    analyze.add_argument("--images", required=True, metavar="DIR", help="images, at any depth")
    analyze.add_argument("--out", required=True, metavar="DIR", help="for figures and numbers")
    analyze.add_argument(
        "--what", nargs="+", default=["amplitude"], help="amplitude, response, receptive-field"
    )
    analyze.add_argument(
        "--sites", nargs="+", default=["mixers"], help="mixers, blocks, or patterns of modules"
    )
    analyze.add_argument("--size", type=at_least(32), help="image side (default: the model's)")
    analyze.add_argument("--batch", type=at_least(1), default=16, help="images at a time")
    analyze.add_argument("--limit", type=at_least(1), help="at most so many images")
    analyze.add_argument("--profile", default="diagonal", help="diagonal or radial")
    analyze.add_argument("--json", action="store_true", help="print the numbers as JSON")

    explain = command("explain", run_explain, "show where a classifier looks")
    explain.add_argument("checkpoint")
    explain.add_argument("images", nargs="+", metavar="IMAGE", help="files, or folders of files")
    explain.add_argument("--out", required=True, metavar="DIR", help="for explained.png")
    explain.add_argument("--what", nargs="+", default=None, help="context (of SPANet), score-cam")
    explain.add_argument("--target", metavar="CLASS", help="(default: each image's likeliest)")
    explain.add_argument(
        "--site", default="stages.3", metavar="MODULE", help="of Score-CAM (default: stages.3)"
    )
    return parser


def at_least(low: int) -> Callable[[str], int]:
    """Makes a type for argparse: whole numbers from `low` up."""

    def convert(text: str) -> int:
        if text.lstrip("-").isdecimal() and int(text) >= low:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text} is no whole number from {low} up")

    return convert


def run_models(arguments: argparse.Namespace, _: list[str]) -> int:
    """Prints the table of models."""
    from spanets.benchmark import model_table

    rows = model_table(arguments.pattern)
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return 0
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


def leave_cores_to_workers() -> None:
    """Lets torch's idle threads sleep: by spinning they keep loading processes off the cores.

    On two cores an epoch of the quickstart takes some 15 % less. Read when torch is imported, so
    without effect through `python -m spanets`, which imports the package before its `__main__`.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def run_train(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Trains, and prints the summary."""
    from spanets.recipe import load_recipe
    from spanets_runtime.errors import require

    recipe = load_recipe(arguments.recipe, overrides)
    if arguments.print_recipe:
        import yaml

        print(yaml.safe_dump(recipe.to_dict(), sort_keys=False), end="")
        return 0
    # Before hours of training, not at the first use.
    for module in ("lightning", "torchmetrics", "tensorboard", "matplotlib"):
        require(module, "train")
    from spanets.tasks.engine import choose_run_folder, train
    from spanets.tasks.report import describe_results

    out = choose_run_folder(arguments.recipe, arguments.out, arguments.resume)
    print(describe_results(train(recipe, out, resume=arguments.resume)))
    return 0


def run_eval(arguments: argparse.Namespace, _: list[str]) -> int:
    """Evaluates, and prints the metrics."""
    from spanets_runtime.errors import require

    require("lightning", "train")
    from spanets.tasks.evaluation import evaluate
    from spanets.tasks.report import describe_metrics

    results = evaluate(
        Path(arguments.checkpoint), arguments.data, arguments.workers, arguments.batch
    )
    print(json.dumps(results, indent=2) if arguments.json else describe_metrics(results))
    return 0


def run_predict(arguments: argparse.Namespace, _: list[str]) -> int:
    """Predicts, and prints labels; 1 if an image could not be read."""
    from tqdm import tqdm

    from spanets_runtime.predict import expand_images

    images, predictor = expand_images(arguments.images), make_predictor(arguments.checkpoint)
    # Lines tell the progress themselves.
    hidden = None if arguments.json else True
    watched = tqdm(images, desc="predict", disable=hidden, leave=False)
    found, failed = [], False
    for prediction in predictor(watched, arguments.top):
        if prediction.error is not None:
            failed = True
            tqdm.write(f"spanets: {prediction.error}", file=sys.stderr)
            continue
        labels = [{"label": name, "probability": p} for name, p in prediction.labels]
        found.append({"image": prediction.image, "predictions": labels})
        if not arguments.json:
            shown = "  ".join(f"{name} {p:.3f}" for name, p in prediction.labels)
            print(f"{prediction.image}: {shown}", flush=True)
    if arguments.json:
        print(json.dumps(found, indent=2))
    return int(failed)


def make_predictor(source: str) -> Any:
    """Opens an exported model, without importing torch, or a checkpoint."""
    if source.endswith(".onnx"):
        from spanets_runtime.onnx import OnnxPredictor

        return OnnxPredictor(source)
    from spanets.predict import Predictor

    return Predictor(source)


def run_export(arguments: argparse.Namespace, _: list[str]) -> int:
    """Exports, and prints how far the file is from eager."""
    from spanets.checkpoint import is_checkpoint
    from spanets.export import export_model, load_source
    from spanets.quantize import calibration_images
    from spanets_runtime.preprocessing import Preprocessing

    model, metadata = load_source(arguments.source, arguments.weights, arguments.features_only)
    if arguments.static and arguments.size:  # the only size that the file will take
        metadata["preprocessing"]["input_size"][-2:] = [arguments.size] * 2
    calibration = None
    if arguments.calibration is not None:
        preprocess = Preprocessing.parse(metadata["preprocessing"], arguments.source)
        count = arguments.calibration_images
        calibration = calibration_images(arguments.calibration, preprocess, count)
    written = export_model(
        model,
        arguments.out,
        size=arguments.size or metadata["preprocessing"]["input_size"][-1],
        dtype=arguments.dtype,
        dynamic=not arguments.static,
        opset=arguments.opset,
        metadata=metadata,
        calibration=calibration,
    )
    if arguments.json:
        print(json.dumps(written.to_dict(), indent=2))
        return 0
    shape = ", ".join(map(str, written.inputs["images"]))
    print(f"{written.path}: {written.bytes / 1e6:.1f} MB, {written.dtype}")
    print(f"images ({shape}) -> {', '.join(written.outputs)}")
    for given, difference in written.differences.items():
        print(f"  {given}: off by {difference:.1e} of the largest value from eager float32")
    if written.agreement is not None:
        print(f"  same class as eager float32: {written.agreement:.1%} of the calibration images")
    if not is_checkpoint(arguments.source) and arguments.weights is None:
        print("the weights are random: give --weights FILE or a checkpoint", file=sys.stderr)
    return 0


def run_bench(arguments: argparse.Namespace, _: list[str]) -> int:
    """Times models, and prints a table."""
    from spanets.benchmark.compare import Setting, compare, set_threads
    from spanets.benchmark.report import HEADER, check_picture, describe_setting, plot, table_rows
    from spanets_runtime.errors import UsageError

    if arguments.compile and arguments.backend not in ("eager", "compile"):
        raise UsageError(f"--compile does not go with --backend {arguments.backend}")
    if arguments.plot is not None:
        check_picture(arguments.plot)
    set_threads(arguments.threads)
    setting = Setting(
        arguments.dtype,
        "compile" if arguments.compile else arguments.backend,
        arguments.train,
        arguments.device,
        arguments.channels_last,
    )
    result = compare(
        arguments.models, setting, arguments.batch, arguments.size, arguments.form, arguments.rounds
    )
    if arguments.plot is not None:
        plot(result, arguments.plot)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return 0
    print(describe_setting(result))
    print_table(HEADER, table_rows(result))
    return 0


def run_analyze(arguments: argparse.Namespace, _: list[str]) -> int:
    """Analyses models, and prints where the figures are."""
    from spanets.analyze import analyze
    from spanets_runtime.errors import require

    require("matplotlib", "analysis")  # before the models run
    results = analyze(
        arguments.models,
        arguments.images,
        arguments.out,
        arguments.what,
        arguments.sites,
        arguments.size,
        arguments.batch,
        arguments.profile,
        arguments.limit,
    )
    if arguments.json:
        print(json.dumps(results, indent=2))
        return 0
    for source, row in results.items():
        for name, numbers in row.get("amplitude", {}).items():
            print(f"{source} {name}: {numbers['last']:+.2f} at the highest frequency")
        for name, numbers in row.get("response", {}).items():
            ratio = numbers["bands"]["high_pass_ratio"]
            told = "too small a map" if ratio is None else f"{ratio:.2f}"
            print(f"{source} {name}: high-pass ratio {told}")
    print(f"figures and numbers: {arguments.out}")
    return 0


def run_explain(arguments: argparse.Namespace, _: list[str]) -> int:
    """Draws a sheet, and prints where it is; 1 if an image could not be read."""
    from spanets.explain import explain
    from spanets_runtime.predict import expand_images

    sheet, errors = explain(
        arguments.checkpoint,
        expand_images(arguments.images),
        arguments.out,
        arguments.what,
        arguments.target,
        arguments.site,
    )
    for error in errors:
        print(f"spanets: {error}", file=sys.stderr)
    print(sheet)
    return int(bool(errors))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints aligned columns, numbers to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        cells = [
            cell.ljust(width) if i in (0, len(row) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


if __name__ == "__main__":
    sys.exit(main())
