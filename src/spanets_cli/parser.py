"""The words of every command; nothing of the library is imported to read them."""

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
Sections: model, data, optim, trainer. `--print-recipe` shows every key with its value, what it does
and what is allowed; docs/recipe-keys.md lists the keys of all tasks.
A text is taken as it stands, numbers are decimal, a list is written "[0.5, 2]". `null` or `none`
unsets a key that may be unset. If a key is given more than once, the last one counts.
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
    "--trust-recipe": False,
    "--debug": False,
    "--help": False,
}


def check_command(words: Sequence[str]) -> None:
    """Exits if the first word is no command, telling the nearest one."""
    if not words or words[0].startswith("-") or words[0] in COMMANDS:
        return
    close = get_close_matches(words[0], COMMANDS, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(COMMANDS)}"
    Parser(prog="spanets").error(f"unknown command {shorten(repr(words[0]))}{hint}")


def check_words(words: Sequence[str]) -> None:
    """Exits if a word is empty, or holds a NUL character, which no name of a file has.

    An empty word comes from a variable of a script that is not set. As a path it would be the
    current folder, so no option takes one.
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


def make_parser() -> Parser:
    """Describes all commands; imports nothing."""
    common = Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
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

    models = command("models", run_models, "list the models: size, cost, published accuracy")
    models.add_argument("pattern", nargs="?", default="", help="shell pattern, such as '*small*'")
    models.add_argument("--json", action="store_true", help="print JSON")

    train = command("train", run_train, "train by a recipe", epilog=TRAIN_KEYS)
    train.add_argument("recipe", help="a recipe's name, such as elpv, or a YAML file")
    train.add_argument("--out", metavar="DIR", help="run folder (default: a free runs/RECIPE)")
    train.add_argument("--resume", action="store_true", help="go on from DIR's last checkpoint")
    train.add_argument(
        "--print-recipe",
        action="store_true",
        help="print every key with its value and what it does, and stop",
    )
    train.add_argument(
        "--trust-recipe",
        action="store_true",
        help="let a recipe file name addresses to fetch from and folders to write to",
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
        metavar="NAME",
        help="imagenet, or that with -real, -v2, -c, -a or -r (default: as found)",
    )
    evaluate.add_argument(
        "--batch",
        type=whole(1, MOST_BATCH),
        metavar="N",
        help="images at a time (default: 64; of a detector 2, which changes no number)",
    )
    evaluate.add_argument(
        "--workers",
        type=whole(0, most),
        default=2,
        metavar="N",
        help=f"processes that load images, 0 to {most} here (default: 2)",
    )
    evaluate.add_argument(
        "--trust-recipe",
        action="store_true",
        help="let the checkpoint's recipe decide which images are read and fetched",
    )
    evaluate.add_argument("--json", action="store_true", help="print JSON")

    predict = command("predict", run_predict, "label images or pixels, or find objects")
    predict.add_argument("checkpoint", metavar="CHECKPOINT|FILE.onnx")
    predict.add_argument("images", nargs="+", metavar="IMAGE", help="files, or whole folders")
    predict.add_argument(
        "--top",
        type=whole(1, MOST_COUNT),
        default=5,
        metavar="N",
        help="classes to show for each image (default: 5)",
    )
    predict.add_argument(
        "--score",
        type=share,
        default=0.5,
        metavar="P",
        help="lowest score of an object, 0 to 1 (default: 0.5)",
    )
    predict.add_argument("--out", metavar="DIR", help="folder for pictures, masks, COCO's JSON")
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
    export.add_argument(
        "--ema",
        action=argparse.BooleanOptionalAction,
        help="take the averages in FILE, or not (default: what is in its main place)",
    )
    export.add_argument(
        "--features-only", action="store_true", help="feature maps in place of logits"
    )
    export.add_argument(
        "--size",
        type=sides(32, MOST_SIDE),
        metavar="SIDE|HxW",
        help="side of the images to trace with, or height and width (default: the model's)",
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
        help="how many of them to use (default: 128)",
    )
    export.add_argument(
        "--opset", type=whole(1, 99), metavar="N", help="ONNX operator set (default: 20)"
    )
    export.add_argument("--json", action="store_true", help="print JSON")

    bench = command("bench", run_bench, "time models and files side by side: any of timm's, too")
    bench.add_argument("models", nargs="+", metavar="MODEL|CHECKPOINT|FILE.onnx")
    bench.add_argument(
        "--batch",
        type=whole(1, MOST_BATCH),
        nargs="+",
        default=[1],
        metavar="N",
        help="images at a time, one number or several (default: 1)",
    )
    bench.add_argument(
        "--size",
        type=whole(32, MOST_SIDE),
        nargs="+",
        default=[224],
        metavar="SIDE",
        help="side of the images in pixels, one or several (default: 224)",
    )
    bench.add_argument(
        "--form",
        nargs="+",
        default=["default"],
        metavar="FORM",
        help="default, fft (with Fourier transforms), or both (default: default)",
    )
    bench.add_argument(
        "--dtype",
        default="float32",
        metavar="TYPE",
        help="float32, bfloat16 or float16 (default: float32)",
    )
    bench.add_argument("--backend", metavar="NAME", help="eager, compile or onnx (default: eager)")
    bench.add_argument("--compile", action="store_true", help="the same as --backend compile")
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
        help=f"CPU threads, 1 to {most} here (default: torch's choice)",
    )
    bench.add_argument(
        "--rounds",
        type=whole(1, MOST_ROUNDS),
        default=15,
        metavar="N",
        help="rounds that are timed (default: 15)",
    )
    bench.add_argument("--plot", metavar="FILE", help="draw the times: FILE.png, .svg or .pdf")
    bench.add_argument("--json", action="store_true", help="print JSON")

    analyze = command("analyze", run_analyze, "measure what models do to frequencies")
    analyze.add_argument("models", nargs="+", metavar="MODEL", help=MODEL_SOURCES)
    analyze.add_argument("--images", required=True, metavar="DIR", help="searched at any depth")
    analyze.add_argument("--out", required=True, metavar="DIR", help="for figures and numbers")
    analyze.add_argument(
        "--what",
        nargs="+",
        default=["amplitude"],
        metavar="NAME",
        help="amplitude (the default), response, impulse, receptive-field, sensitivity, bands",
    )
    analyze.add_argument(
        "--sites",
        nargs="+",
        default=["mixers"],
        metavar="PATTERN",
        help="mixers, blocks, or patterns of modules (default: mixers)",
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
        help="images at a time (default: 16)",
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
        help="norm of the wave that sensitivity adds (default: 15.7 at 224²)",
    )
    analyze.add_argument(
        "--frequencies",
        type=whole(3, MOST_FREQUENCIES),
        default=15,
        metavar="N",
        help="side of the sensitivity map, an odd number (default: 15)",
    )
    analyze.add_argument("--json", action="store_true", help="print the numbers as JSON")

    explain = command("explain", run_explain, "show where a classifier looks")
    explain.add_argument("checkpoint", metavar="CHECKPOINT")
    explain.add_argument("images", nargs="+", metavar="IMAGE", help="files, or whole folders")
    explain.add_argument("--out", required=True, metavar="DIR", help="folder for explained.png")
    explain.add_argument(
        "--what", nargs="+", default=None, metavar="NAME", help="context (of SPANet), score-cam"
    )
    explain.add_argument(
        "--target", metavar="CLASS", help="class to explain (default: each image's likeliest)"
    )
    explain.add_argument(
        "--site",
        default="stages.3",
        metavar="MODULE",
        help="layer of Score-CAM (default: stages.3)",
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
        "--licence", metavar="NAME", help="licence of the weights, as the hub names it, such as mit"
    )
    push.add_argument("--message", metavar="TEXT", help="message of the commit on the hub")

    shard = command("shard", run_shard, "write class folders as shards for large-scale training")
    shard.add_argument("folder", metavar="DIR", help="class folders, or train/ and val/ with them")
    shard.add_argument("--out", required=True, metavar="DIR", help="a new or unfinished folder")
    shard.add_argument(
        "--size",
        type=byte_size,
        default=512 * 10**6,
        metavar="SIZE",
        help="size of a shard, roughly, such as 1GiB (default: 512MB)",
    )
    shard.add_argument("--json", action="store_true", help="print JSON")

    runs = command("runs", run_runs, "list runs, or compare some", epilog=RUNS_WORDS)
    runs.add_argument("paths", nargs="*", metavar="DIR|RUN", help="folders of runs (default: runs)")
    runs.add_argument("--sort", metavar="KEY", help="a metric, status, model, seconds, started, …")
    runs.add_argument(
        "--plot", metavar="FILE", help="draw the learning curves: FILE.png, .svg, .pdf"
    )
    runs.add_argument("--json", action="store_true", help="print JSON")
    return parser
