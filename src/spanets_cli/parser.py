"""The options of every command; parsing them imports nothing of the library."""

import argparse
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from spanets_cli.base_parser import Parser, ShowVersion
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
from spanets_cli.limits import (
    MOST_BATCH,
    MOST_COUNT,
    MOST_FREQUENCIES,
    MOST_ROUNDS,
    MOST_SIDE,
)
from spanets_cli.option_types import byte_size, positive, share, sides, whole
from spanets_runtime.machine import most_parallel
from spanets_runtime.text import shorten

TRAIN_KEYS = """\
Every key of the recipe can be set: --section.key VALUE, for example
  spanets train elpv --trainer.epochs 5 --model.name resnet18
  spanets train photos --data.root photos
Sections: model, data, optim, trainer. `--print-recipe` shows every key with its value, its meaning
and the allowed values; docs/recipe-keys.md lists the keys of all tasks.
Write numbers in decimal and lists as "[0.5, 2]". `null` or `none` clears an optional key.
If you give a key more than once, the last value counts.
"""

RUNS_WORDS = """\
  spanets runs                        all runs under runs/
  spanets runs experiments --sort accuracy
  spanets runs experiments a b        differences between experiments/a and experiments/b
  spanets runs runs/a other/b         differences between two folders
"""

COMMANDS = (
    *("models", "train", "eval", "predict", "export", "bench", "analyze", "explain"),
    *("push", "shard", "runs"),
)

MODEL_SOURCES = "a timm model name, a checkpoint, or module:function"

# The options of `train` that are not recipe keys, and whether a value follows.
TRAIN_OPTIONS = {
    "--out": True,
    "--resume": False,
    "--print-recipe": False,
    "--trust-recipe": False,
    "--debug": False,
    "--help": False,
}


def check_command(words: Sequence[str]) -> None:
    """Exits if the first word is not a command; the message suggests the nearest one."""
    if not words or words[0].startswith("-") or words[0] in COMMANDS:
        return
    close = get_close_matches(words[0], COMMANDS, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(COMMANDS)}"
    Parser(prog="spanets").error(f"unknown command {shorten(repr(words[0]))}{hint}")


def check_words(words: Sequence[str]) -> None:
    """Exits if a word is empty or holds a NUL character, which no file name can hold.

    An empty word usually comes from an unset shell variable. As a path it would mean the current
    folder, so no option accepts it.
    """
    command = f"spanets {words[0]}" if words and words[0] in COMMANDS else "spanets"
    for before, word in zip(["spanets", *words], words, strict=False):
        option, equals, value = word.partition("=")
        if "\0" in word:
            Parser(prog=command).error(f"{shorten(repr(word))} holds a NUL character")
        if not word or (option.startswith("--") and equals and not value):
            what = option or f"the word after {shorten(before)}"
            Parser(prog=command).error(f"{what} is empty; leave it out, or give a value")


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits the words of `train` into its own options and those that set recipe keys."""
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


def make_parser() -> Parser:
    """Returns the parser of all commands."""
    common = Parser(add_help=False)
    common.add_argument(
        "--debug", action="store_true", help="show the traceback if an error occurs"
    )
    most = most_parallel()
    parser = Parser(
        prog="spanets",
        description="SPANet and SPANetV2: train, evaluate and use frequency-balancing backbones.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=ShowVersion, help="show the version and exit")
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

    models = command("models", run_models, "list the models with size, cost and published accuracy")
    models.add_argument("pattern", nargs="?", default="", help="shell pattern, such as '*small*'")
    models.add_argument("--json", action="store_true", help="print JSON")

    train = command("train", run_train, "train a model from a recipe", epilog=TRAIN_KEYS)
    train.add_argument("recipe", help="name of a recipe, such as elpv, or a YAML file")
    train.add_argument(
        "--out", metavar="DIR", help="run folder (default: runs/RECIPE, or RECIPE-2, ... if taken)"
    )
    train.add_argument(
        "--resume", action="store_true", help="resume from the last checkpoint in DIR"
    )
    train.add_argument(
        "--print-recipe",
        action="store_true",
        help="print every key with its value and meaning, and exit",
    )
    train.add_argument(
        "--trust-recipe",
        action="store_true",
        help="allow a recipe file to set URLs to download from and folders to write to",
    )

    evaluate = command(
        "eval", run_eval, "evaluate a checkpoint or exported model on labelled images"
    )
    evaluate.add_argument("checkpoint", metavar="CHECKPOINT|FILE.onnx")
    evaluate.add_argument(
        "--data",
        metavar="DIR",
        help="data set (default: test images of the run, or its validation images if it has none)",
    )
    evaluate.add_argument(
        "--layout",
        metavar="NAME",
        help="imagenet, imagenet-real, -v2, -c, -a or -r (default: detect it)",
    )
    evaluate.add_argument(
        "--batch",
        type=whole(1, MOST_BATCH),
        metavar="N",
        help="images in a batch (default: 64, or 2 for detectors)",
    )
    evaluate.add_argument(
        "--workers",
        type=whole(0, most),
        default=2,
        metavar="N",
        help=f"processes that load images, 0 to {most} on this machine (default: 2)",
    )
    evaluate.add_argument(
        "--trust-recipe",
        action="store_true",
        help="allow the checkpoint's recipe to choose which images are read or downloaded",
    )
    evaluate.add_argument("--json", action="store_true", help="print JSON")

    predict = command("predict", run_predict, "classify images, segment them, or detect objects")
    predict.add_argument("checkpoint", metavar="CHECKPOINT|FILE.onnx")
    predict.add_argument("images", nargs="+", metavar="IMAGE", help="image files or folders")
    predict.add_argument(
        "--top",
        type=whole(1, MOST_COUNT),
        default=5,
        metavar="N",
        help="classifiers: number of classes to show for each image (default: 5)",
    )
    predict.add_argument(
        "--score",
        type=share,
        default=0.5,
        metavar="P",
        help="detectors: lowest score of an object, 0 to 1 (default: 0.5)",
    )
    predict.add_argument("--out", metavar="DIR", help="folder for pictures, masks and COCO JSON")
    predict.add_argument(
        "--annotations",
        metavar="FILE",
        help="detectors: COCO JSON whose image and category ids to use in the --out file",
    )
    predict.add_argument("--json", action="store_true", help="print JSON")

    export = command("export", run_export, "export a model to ONNX or torch.export, and verify it")
    export.add_argument("source", metavar="MODEL|CHECKPOINT")
    export.add_argument("--out", required=True, metavar="FILE", help="FILE.onnx or FILE.pt2")
    export.add_argument("--weights", metavar="FILE", help="weights for a MODEL (default: random)")
    export.add_argument(
        "--ema",
        action=argparse.BooleanOptionalAction,
        help="use the file's averaged (EMA) weights, or the plain ones (default: its main ones)",
    )
    export.add_argument(
        "--features-only", action="store_true", help="output feature maps instead of logits"
    )
    export.add_argument(
        "--size",
        type=sides(32, MOST_SIDE),
        metavar="SIDE|HxW",
        help="image side, or height and width, to trace with (default: the model's)",
    )
    export.add_argument("--static", action="store_true", help="fix batch size, height and width")
    export.add_argument(
        "--dtype",
        default="float32",
        metavar="TYPE",
        help="float32, float16 or int8 (default: float32)",
    )
    export.add_argument("--calibration", metavar="DIR", help="images to calibrate int8 with")
    export.add_argument(
        "--calibration-images",
        type=whole(1, MOST_COUNT),
        default=128,
        metavar="N",
        help="number of calibration images (default: 128)",
    )
    export.add_argument(
        "--opset", type=whole(1, 99), metavar="N", help="ONNX operator set (default: 20)"
    )
    export.add_argument("--json", action="store_true", help="print JSON")

    bench = command("bench", run_bench, "time models and exported files side by side")
    bench.add_argument("models", nargs="+", metavar="MODEL|CHECKPOINT|FILE.onnx")
    bench.add_argument(
        "--batch",
        type=whole(1, MOST_BATCH),
        nargs="+",
        default=[1],
        metavar="N",
        help="images in a batch, one or several values (default: 1)",
    )
    bench.add_argument(
        "--size",
        type=whole(32, MOST_SIDE),
        nargs="+",
        default=[224],
        metavar="SIDE",
        help="image side in pixels, one or several values (default: 224)",
    )
    bench.add_argument(
        "--form",
        nargs="+",
        default=["default"],
        metavar="FORM",
        help="default, fft (filters by Fourier transforms), or both (default: default)",
    )
    bench.add_argument(
        "--dtype",
        default="float32",
        metavar="TYPE",
        help="float32, bfloat16 or float16 (default: float32)",
    )
    bench.add_argument("--backend", metavar="NAME", help="eager, compile or onnx (default: eager)")
    bench.add_argument("--compile", action="store_true", help="same as --backend compile")
    bench.add_argument("--train", action="store_true", help="time training steps, not inference")
    bench.add_argument(
        "--device", default="cpu", metavar="NAME", help="cpu, cuda, … (default: cpu)"
    )
    bench.add_argument(
        "--channels-last", action="store_true", help="use the channels-last memory layout"
    )
    bench.add_argument(
        "--threads",
        type=whole(1, most),
        metavar="N",
        help=f"CPU threads, 1 to {most} on this machine (default: chosen by torch)",
    )
    bench.add_argument(
        "--rounds",
        type=whole(1, MOST_ROUNDS),
        default=15,
        metavar="N",
        help="number of timed rounds (default: 15)",
    )
    bench.add_argument("--plot", metavar="FILE", help="draw the times: FILE.png, .svg or .pdf")
    bench.add_argument("--json", action="store_true", help="print JSON")

    analyze = command("analyze", run_analyze, "measure how models treat spatial frequencies")
    analyze.add_argument("models", nargs="+", metavar="MODEL", help=MODEL_SOURCES)
    analyze.add_argument(
        "--images", required=True, metavar="DIR", help="folder of images, at any depth"
    )
    analyze.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    analyze.add_argument(
        "--what",
        nargs="+",
        default=["amplitude"],
        metavar="NAME",
        help="amplitude, response, impulse, receptive-field, sensitivity, bands "
        "(default: amplitude)",
    )
    analyze.add_argument(
        "--sites",
        nargs="+",
        default=["mixers"],
        metavar="PATTERN",
        help="mixers, blocks, or patterns of module names (default: mixers)",
    )
    analyze.add_argument(
        "--size",
        type=whole(32, MOST_SIDE),
        metavar="SIDE",
        help="side of the images in pixels (default: the model's)",
    )
    analyze.add_argument(
        "--batch",
        type=whole(1, MOST_BATCH),
        default=16,
        metavar="N",
        help="images in a batch (default: 16)",
    )
    analyze.add_argument(
        "--limit",
        type=whole(1, MOST_COUNT),
        metavar="N",
        help="use at most N images, spread evenly over the folder",
    )
    analyze.add_argument(
        "--profile",
        default="diagonal",
        metavar="NAME",
        help="diagonal or radial (default: diagonal)",
    )
    analyze.add_argument(
        "--epsilon",
        type=positive,
        metavar="NORM",
        help="norm of the sinusoid that sensitivity adds (default: 15.7 at 224²)",
    )
    analyze.add_argument(
        "--frequencies",
        type=whole(3, MOST_FREQUENCIES),
        default=15,
        metavar="N",
        help="side of the sensitivity map, an odd number (default: 15)",
    )
    analyze.add_argument("--json", action="store_true", help="print the numbers as JSON")

    explain = command("explain", run_explain, "draw heat maps of where a classifier looks")
    explain.add_argument("checkpoint", metavar="CHECKPOINT")
    explain.add_argument("images", nargs="+", metavar="IMAGE", help="image files or folders")
    explain.add_argument("--out", required=True, metavar="DIR", help="folder for explained.png")
    explain.add_argument(
        "--what", nargs="+", default=None, metavar="NAME", help="context (SPANet only), score-cam"
    )
    explain.add_argument(
        "--target", metavar="CLASS", help="class to explain (default: the most likely one)"
    )
    explain.add_argument(
        "--site",
        default="stages.3",
        metavar="MODULE",
        help="layer that Score-CAM looks at (default: stages.3)",
    )

    push = command("push", run_push, "publish a classifier in timm's format")
    push.add_argument("checkpoint", metavar="CHECKPOINT")
    push.add_argument(
        "--to",
        required=True,
        metavar="DIR|hf-hub:OWNER/NAME",
        help="a folder, or a repository on the Hugging Face hub",
    )
    push.add_argument(
        "--licence",
        metavar="NAME",
        help="licence of the weights, in the hub's spelling, such as mit",
    )
    push.add_argument("--message", metavar="TEXT", help="commit message on the hub")

    shard = command("shard", run_shard, "pack class folders into shards for large-scale training")
    shard.add_argument(
        "folder", metavar="DIR", help="folder of class folders, or of train/ and val/"
    )
    shard.add_argument("--out", required=True, metavar="DIR", help="new or unfinished folder")
    shard.add_argument(
        "--size",
        type=byte_size,
        default=512 * 10**6,
        metavar="SIZE",
        help="approximate size of a shard, such as 1GiB (default: 512MB)",
    )
    shard.add_argument("--json", action="store_true", help="print JSON")

    runs = command("runs", run_runs, "list or compare training runs", epilog=RUNS_WORDS)
    runs.add_argument("paths", nargs="*", metavar="DIR|RUN", help="folders of runs (default: runs)")
    runs.add_argument(
        "--sort", metavar="KEY", help="name, status, model, epochs, seconds, started or a metric"
    )
    runs.add_argument(
        "--plot", metavar="FILE", help="draw the learning curves: FILE.png, .svg, .pdf"
    )
    runs.add_argument("--json", action="store_true", help="print JSON")
    return parser
