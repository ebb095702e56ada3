"""`spanets export`: writes a model for deployment."""

import argparse

from spanets_cli.limits import MOST_COUNT, MOST_SIDE
from spanets_cli.option_types import sides, whole
from spanets_cli.output import print_json, say, tell
from spanets_cli.shared_options import add_pretrained, add_weights

HELP = "export a model to ONNX or torch.export, and verify it"

EPILOG = """\
examples:
  spanets export runs/photos/last.ckpt --out photos.onnx
  spanets export spanetv2_s18_pure --features-only --out maps.onnx
  spanets export runs/photos/last.ckpt --out photos8.onnx --dtype int8 --calibration photos
  spanets export runs/photos/last.ckpt --out photos.pt2 --static
"""

DETECTOR_SIZE = 512
"""Side of the images that a detector is exported with by default; detectors take any size."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("source", metavar="MODEL|CHECKPOINT")
    parser.add_argument("--out", required=True, metavar="FILE", help="FILE.onnx or FILE.pt2")
    add_weights(parser)
    add_pretrained(parser)
    parser.add_argument(
        "--ema",
        action=argparse.BooleanOptionalAction,
        help="use the file's averaged (EMA) weights, or the plain ones (default: its main ones)",
    )
    parser.add_argument(
        "--features-only", action="store_true", help="output feature maps instead of logits"
    )
    parser.add_argument(
        "--size",
        type=sides(32, MOST_SIDE),
        metavar="SIDE|HxW",
        help="image side, or height and width, to trace with (default: the model's)",
    )
    parser.add_argument("--static", action="store_true", help="fix batch size, height and width")
    parser.add_argument(
        "--dtype",
        default="float32",
        metavar="TYPE",
        help="float32, float16 or int8 (default: float32)",
    )
    parser.add_argument("--calibration", metavar="DIR", help="images to calibrate int8 with")
    parser.add_argument(
        "--calibration-images",
        type=whole(1, MOST_COUNT),
        default=128,
        metavar="N",
        help="number of calibration images (default: 128)",
    )
    parser.add_argument(
        "--opset", type=whole(1, 99), metavar="N", help="ONNX operator set (default: 20)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, _: list[str]) -> int:
    """Exports a model and prints how its outputs differ from eager PyTorch."""
    from spanets.deploy.export import export_model, load_source
    from spanets.deploy.quantize import calibration_images, calibration_transform
    from spanets.sources import describe_weights
    from spanets.tasks import DEFAULT_TASK

    model, metadata, source = load_source(
        arguments.source,
        arguments.weights,
        arguments.features_only,
        arguments.ema,
        arguments.pretrained,
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
    if (about := describe_weights(source)) is not None:
        tell(about)
    if arguments.json:
        return print_json(written.to_dict())
    shape = ", ".join(map(str, written.inputs["images"]))
    say(f"{written.path}: {written.bytes / 1e6:.1f} MB, {written.dtype}")
    say(f"images ({shape}) -> {', '.join(written.outputs)}")
    for given, difference in written.differences.items():
        say(f"  {given}: differs from eager float32 by {difference:.1e} of the largest value")
    if written.agreement is not None and metadata.get("task") in (None, DEFAULT_TASK):
        say(f"  same class as eager float32: {written.agreement:.1%} of the calibration images")
    return 0
