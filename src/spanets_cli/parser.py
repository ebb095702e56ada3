"""The words of every command; nothing of the library is imported to read them."""

import argparse
import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from spanets_cli.commands import (
    run_analyze,
    run_bench,
    run_eval,
    run_explain,
    run_export,
    run_models,
    run_predict,
    run_push,
    run_runs,
    run_shard,
    run_train,
)

TRAIN_KEYS = """\
Every key of the recipe can be set: --section.key VALUE, for example
  spanets train elpv --trainer.epochs 5 --model.name resnet18
  spanets train photos --data.root photos
sections: model, data, optim, trainer; `--print-recipe` shows all keys with their values.
"""

RUNS_WORDS = """\
  spanets runs                        all below runs/
  spanets runs experiments --sort accuracy
  spanets runs experiments a b        what differs between experiments/a and experiments/b
  spanets runs runs/a other/b         the same for two folders
"""

COMMANDS = (
    *("models", "train", "eval", "predict", "export", "bench", "analyze", "explain"),
    *("push", "shard", "runs"),
)

MODEL_SOURCES = "timm's names, checkpoints, or module:function of your own"

# The words of `train` that are no keys of a recipe, and whether a value follows.
TRAIN_OPTIONS = {
    "--out": True,
    "--resume": False,
    "--print-recipe": False,
    "--debug": False,
    "--help": False,
}


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

    evaluate = command("eval", run_eval, "measure a checkpoint or file on labelled images")
    evaluate.add_argument("checkpoint", metavar="CHECKPOINT|FILE.onnx")
    evaluate.add_argument(
        "--data",
        metavar="DIR",
        help="the data set (default: the run's test images, or else its validation images)",
    )
    evaluate.add_argument(
        "--layout",
        help="imagenet, or that with -real, -v2, -c, -a or -r (default: as found)",
    )
    evaluate.add_argument(
        "--batch",
        type=at_least(1),
        help="images at a time (default: 64; of a detector 2, which changes no number)",
    )
    evaluate.add_argument(
        "--workers", type=at_least(0), default=2, help="processes that load images (default: 2)"
    )
    evaluate.add_argument("--json", action="store_true", help="print JSON")

    predict = command("predict", run_predict, "label images or pixels, or find objects")
    predict.add_argument("checkpoint", metavar="CHECKPOINT|FILE.onnx")
    predict.add_argument("images", nargs="+", metavar="IMAGE", help="files, or folders of files")
    predict.add_argument(
        "--top", type=at_least(1), default=5, help="classes for each image (default: 5)"
    )
    predict.add_argument(
        "--score", type=share, default=0.5, help="least score of an object (default: 0.5)"
    )
    predict.add_argument("--out", metavar="DIR", help="for pictures, and COCO's JSON or masks")
    predict.add_argument(
        "--annotations",
        metavar="FILE",
        help="of a detector: COCO's JSON that lists the images, for its numbers in what --out gets",
    )
    predict.add_argument("--json", action="store_true", help="print JSON")

    export = command("export", run_export, "write a model for other runtimes, and check it")
    export.add_argument("source", metavar="MODEL|CHECKPOINT")
    export.add_argument("--out", required=True, metavar="FILE", help="FILE.onnx or FILE.pt2")
    export.add_argument("--weights", metavar="FILE", help="weights for a MODEL (default: random)")
    export.add_argument("--features-only", action="store_true", help="maps in place of logits")
    export.add_argument(
        "--size",
        type=sides_from(32),
        metavar="SIDE|HxW",
        help="side of the images to trace with, or height and width (default: the model's)",
    )
    export.add_argument("--static", action="store_true", help="fix batch size, height and width")
    export.add_argument(
        "--dtype", default="float32", help="float32, float16 or int8 (default: float32)"
    )
    export.add_argument("--calibration", metavar="DIR", help="images that tell int8 its ranges")
    export.add_argument(
        "--calibration-images", type=at_least(1), default=128, help="so many of them (default: 128)"
    )
    export.add_argument("--opset", type=int, help="of ONNX (default: 20)")
    export.add_argument("--json", action="store_true", help="print JSON")

    bench = command("bench", run_bench, "time models and files side by side: any of timm's, too")
    bench.add_argument("models", nargs="+", metavar="MODEL|CHECKPOINT|FILE.onnx")
    bench.add_argument("--batch", type=at_least(1), nargs="+", default=[1], help="(default: 1)")
    bench.add_argument("--size", type=at_least(32), nargs="+", default=[224], help="(default: 224)")
    bench.add_argument(
        "--form", nargs="+", default=["default"], help="default, fft, or default fft"
    )
    bench.add_argument(
        "--dtype", default="float32", help="float32, bfloat16 or float16 (default: float32)"
    )
    bench.add_argument("--backend", help="eager, compile or onnx (default: eager)")
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
        "--what",
        nargs="+",
        default=["amplitude"],
        help="amplitude (the default), response, impulse, receptive-field, sensitivity, bands",
    )
    analyze.add_argument(
        "--sites",
        nargs="+",
        default=["mixers"],
        help="mixers, blocks, or patterns of modules (default: mixers)",
    )
    analyze.add_argument("--size", type=at_least(32), help="image side (default: the model's)")
    analyze.add_argument(
        "--batch", type=at_least(1), default=16, help="images at a time (default: 16)"
    )
    analyze.add_argument("--limit", type=at_least(1), help="at most so many images, evenly spread")
    analyze.add_argument(
        "--profile", default="diagonal", help="diagonal or radial (default: diagonal)"
    )
    analyze.add_argument(
        "--epsilon", type=float, help="norm of sensitivity's waves (default: 15.7 at 224²)"
    )
    analyze.add_argument(
        "--frequencies",
        type=at_least(3),
        default=15,
        help="of sensitivity's map, a side; odd (default: 15)",
    )
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

    push = command("push", run_push, "publish a classifier in timm's format")
    push.add_argument("checkpoint")
    push.add_argument("--to", required=True, metavar="DIR|hf-hub:OWNER/NAME")
    push.add_argument("--licence", help="of the weights, as the hub names it, such as mit")
    push.add_argument("--message", help="of the commit on the hub")

    shard = command("shard", run_shard, "write class folders as shards for large-scale training")
    shard.add_argument("folder", metavar="DIR", help="class folders, or train/ and val/ with them")
    shard.add_argument("--out", required=True, metavar="DIR", help="a new folder, or one half done")
    shard.add_argument(
        "--size", type=byte_size, default=512 * 10**6, help="of a shard, about (default: 512MB)"
    )
    shard.add_argument("--json", action="store_true", help="print JSON")

    runs = command("runs", run_runs, "list runs, or compare some", epilog=RUNS_WORDS)
    runs.add_argument("paths", nargs="*", metavar="DIR|RUN", help="(default: runs)")
    runs.add_argument("--sort", metavar="KEY", help="a metric, status, model, seconds, started, …")
    runs.add_argument(
        "--plot", metavar="FILE", help="draw the learning curves: FILE.png, .svg, .pdf"
    )
    runs.add_argument("--json", action="store_true", help="print JSON")
    return parser


def byte_size(text: str) -> int:
    """Reads 512MB, 1.5 GiB, 4000: an argparse type."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b)?", text.strip().lower())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text} is no size, such as 512MB or 1GiB")
    number, prefix, binary = match.groups()
    factor = (1024 if binary else 1000) ** " kmgt".index(prefix or " ")
    size = int(float(number) * factor)
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text} is too small a size")
    return size


def at_least(low: int) -> Callable[[str], int]:
    """Makes a type for argparse: whole numbers from `low` up."""

    def convert(text: str) -> int:
        if text.lstrip("-").isdecimal() and int(text) >= low:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text} is no whole number from {low} up")

    return convert


def sides_from(low: int) -> Callable[[str], tuple[int, int]]:
    """Makes a type for argparse: height and width, or one side for both, from `low` up."""

    def convert(text: str) -> tuple[int, int]:
        height, cross, width = text.partition("x")
        try:
            return at_least(low)(height), at_least(low)(width if cross else height)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(
                f"{text} is no side from {low} up, nor two such as 256x512"
            ) from error

    return convert


def share(text: str) -> float:
    """Reads a number from 0 to 1, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 0 to 1")
    return value
