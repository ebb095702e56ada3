"""Which heading of `--help` an option stands under; an option means the same in every command."""

_GROUPS = {
    "output": (
        "--json",
        "--out",
        "--table",
        "--errors",
        "--plot",
        "--annotations",
        "--top",
        "--sort",
        "--message",
        "--licence",
    ),
    "model": (
        "--weights",
        "--pretrained",
        "--ema",
        "--form",
        "--layer",
        "--site",
        "--sites",
        "--features-only",
    ),
    "data": (
        "--data",
        "--images",
        "--layout",
        "--bands",
        "--channels",
        "--value-range",
        "--columns",
        "--source",
        "--train",
        "--val-fraction",
        "--calibration",
        "--calibration-images",
        "--limit",
    ),
    "several views of an image": (
        "--tta",
        "--tta-scales",
        "--tta-crops",
        "--tile",
        "--overlap",
    ),
    "thresholds": ("--score", "--precision", "--calibrate", "--calibrated", "--thresholds"),
    "speed and memory": (
        "--batch",
        "--workers",
        "--threads",
        "--device",
        "--dtype",
        "--compile",
        "--channels-last",
        "--backend",
        "--rounds",
    ),
}

GROUP_OF = {option: title for title, options in _GROUPS.items() for option in options}
"""The heading of each option; others stand under argparse's own "options"."""
