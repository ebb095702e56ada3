"""`spanets export`: writes a model for deployment."""

import argparse
from pathlib import Path

from spanets_cli.limits import MOST_COUNT, MOST_SIDE
from spanets_cli.option_types import local_path, sides, whole
from spanets_cli.output import print_json, say, tell
from spanets_cli.shared_options import add_pretrained, add_weights

HELP = "export a model to ONNX or another format, and verify it"

EPILOG = """\
examples:
  spanets export runs/photos/last.ckpt --out photos.onnx
  spanets export spanetv2_s18_pure --features-only --out maps.onnx
  spanets export runs/photos/last.ckpt --out photos8.onnx --dtype int8 --calibration photos
  spanets export runs/photos/last.ckpt --out photos.pt2 --static
  spanets export runs/photos/last.ckpt --to openvino --out photos.xml

formats:
  --to        --out             runs with                     installed by
  onnx        FILE.onnx         ONNX Runtime                  spanets[export]
  torch       FILE.pt2          torch.export                  torch
  openvino    FILE.xml, .bin    OpenVINO                      spanets[openvino]
  executorch  FILE.pte          ExecuTorch with XNNPACK       spanets[executorch]
  coreml      FILE.mlpackage    Core ML, on Apple's systems   spanets[coreml]
  litert      FILE.tflite       LiteRT                        spanets[litert]
  tensorrt    FILE.engine       TensorRT                      built from FILE.onnx where it runs
"""

DETECTOR_SIZE = 512
"""Side of the images that a detector is exported with by default; detectors take any size."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("source", type=local_path, metavar="MODEL|CHECKPOINT")
    parser.add_argument(
        "--out",
        type=local_path,
        required=True,
        metavar="FILE",
        help="file to write; its suffix tells the format",
    )
    parser.add_argument(
        "--to", metavar="TARGET", help="the format, one of those below (default: by the suffix)"
    )
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
    parser.add_argument(
        "--calibration", type=local_path, metavar="DIR", help="images to calibrate int8 with"
    )
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
    from spanets.deploy.export import export_model, load_source, preprocessing_at
    from spanets.deploy.quantize import calibration_images, calibration_transform
    from spanets.deploy.targets import choose_target
    from spanets.sources import describe_weights
    from spanets.tasks import DEFAULT_TASK

    name, target = choose_target(Path(arguments.out), arguments.to)
    target.require()
    is_fixed = arguments.static or not target.is_free
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
    if is_fixed:  # for the calibration images
        preprocessing = preprocessing_at(preprocessing, (height, width))
    calibration = None
    if arguments.calibration is not None or arguments.dtype == "int8":
        transform = calibration_transform(source, preprocessing, not is_fixed)
    if arguments.calibration is not None:
        count = arguments.calibration_images
        calibration = calibration_images(arguments.calibration, transform, count)
    written = export_model(
        model,
        arguments.out,
        size=(height, width),
        dtype=arguments.dtype,
        dynamic=not is_fixed,
        opset=arguments.opset,
        metadata=metadata,
        calibration=calibration,
        to=name,
    )
    if (about := describe_weights(source)) is not None:
        tell(about)
    if arguments.json:
        return print_json(written.to_dict())
    shape = ", ".join(map(str, written.inputs["images"]))
    files = ", ".join([written.path, *(f for f in written.files if f != written.path)])
    say(f"{files}: {written.bytes / 1e6:.1f} MB, {written.dtype}")
    fixed = f"; {name} takes one size" if is_fixed and not arguments.static else ""
    say(f"images ({shape}) -> {', '.join(written.outputs)}{fixed}")
    for note in written.notes:
        say(f"  {note}")
    for given, difference in written.differences.items():
        say(f"  {given}: differs from eager float32 by {difference:.1e} of the largest value")
    if written.agreement is not None and metadata.get("task") in (None, DEFAULT_TASK):
        say(f"  same class as eager float32: {written.agreement:.1%} of the calibration images")
    return 0
