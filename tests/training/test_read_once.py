"""A checkpoint is read once: each command opens the file a single time."""

import pytest
from count_opens import count_opens
from small_runs import call


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
    ids=lambda words: "-".join(word for word in map(str, words) if word.islower()),
)
def test_a_command_reads_the_checkpoint_once(words, small_run, photos, tmp_path, capsys):
    checkpoint = small_run / "last.ckpt"
    places = {"CHECKPOINT": checkpoint, "DATA": photos, "IMAGE": photos / "cat" / "0.png"}
    words = [places.get(word, str(word).replace("OUT", str(tmp_path))) for word in words]
    with count_opens(checkpoint) as counts:
        status, _, said = call(capsys, *words)
        assert status == 0, said
    assert counts == [1]
