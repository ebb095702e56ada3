"""`spanets bench`: times models side by side."""

import argparse

from spanets_cli.limits import MOST_BATCH, MOST_ROUNDS, MOST_SIDE, refuse_large_batches
from spanets_cli.option_types import local_path, whole
from spanets_cli.output import print_json, print_table, say
from spanets_runtime.machine import most_parallel

HELP = "time models and exported files side by side"

EPILOG = """\
examples:
  spanets bench spanet_small convnext_tiny --batch 1 8
  spanets bench spanet_small convnext_tiny --backend onnx
  spanets bench spanet_nano resnet18 --form default fft --rounds 5 --plot speed.png
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    most = most_parallel()
    parser.add_argument(
        "models", type=local_path, nargs="+", metavar="MODEL|CHECKPOINT|FILE.onnx|MODULE:FUNCTION"
    )
    parser.add_argument(
        "--batch",
        type=whole(1, MOST_BATCH),
        nargs="+",
        default=[1],
        metavar="N",
        help="images in a batch, one or several values (default: 1)",
    )
    parser.add_argument(
        "--size",
        type=whole(32, MOST_SIDE),
        nargs="+",
        default=[224],
        metavar="SIDE",
        help="image side in pixels, one or several values (default: 224)",
    )
    parser.add_argument(
        "--form",
        nargs="+",
        default=["default"],
        metavar="FORM",
        help="default, fft (filters by Fourier transforms), or both (default: default)",
    )
    parser.add_argument(
        "--dtype",
        default="float32",
        metavar="TYPE",
        help="float32, bfloat16 or float16 (default: float32)",
    )
    parser.add_argument("--backend", metavar="NAME", help="eager, compile or onnx (default: eager)")
    parser.add_argument("--compile", action="store_true", help="same as --backend compile")
    parser.add_argument("--train", action="store_true", help="time training steps, not inference")
    parser.add_argument(
        "--device", default="cpu", metavar="NAME", help="cpu, cuda, … (default: cpu)"
    )
    parser.add_argument(
        "--channels-last", action="store_true", help="use the channels-last memory layout"
    )
    parser.add_argument(
        "--threads",
        type=whole(1, most),
        metavar="N",
        help=f"CPU threads, 1 to {most} on this machine (default: chosen by torch)",
    )
    parser.add_argument(
        "--rounds",
        type=whole(1, MOST_ROUNDS),
        default=15,
        metavar="N",
        help="number of timed rounds (default: 15)",
    )
    parser.add_argument(
        "--plot", type=local_path, metavar="FILE", help="draw the times: FILE.png, .svg or .pdf"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, _: list[str]) -> int:
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
