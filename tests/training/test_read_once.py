"""A checkpoint is read once: each command opens the file a single time."""

import pytest
from count_opens import assert_opens_once, command_id


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "CHECKPOINT", "IMAGE"),
        ("eval", "CHECKPOINT", "--workers", 0),
        ("eval", "CHECKPOINT", "--workers", 0, "--data", "DATA"),
        ("explain", "CHECKPOINT", "IMAGE", "--site", "layer4", "--out", "OUT"),
        ("export", "CHECKPOINT", "--static", "--size", 64, "--out", "OUT/a.pt2"),
        ("export", "CHECKPOINT", "--features-only", "--static", "--size", 64, "--out", "OUT/a.pt2"),
        ("bench", "CHECKPOINT", "--size", 32, "--rounds", 1),
        ("analyze", "CHECKPOINT", "--images", "DATA", "--sites", "layer*", "--out", "OUT"),
        ("push", "CHECKPOINT", "--to", "OUT"),
    ],
    ids=command_id,
)
def test_a_command_reads_the_checkpoint_once(words, small_run, photos, tmp_path, capsys):
    places = {"DATA": photos, "IMAGE": photos / "cat" / "0.png", "OUT": tmp_path}
    assert_opens_once(words, small_run / "last.ckpt", places, capsys)
