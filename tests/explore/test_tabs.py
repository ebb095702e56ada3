"""What the tabs of the page show, without a server."""

from types import SimpleNamespace

import pytest
from PIL import Image

from spanets.explore.results import Shown

pytest.importorskip("gradio")

from spanets.explore.tabs import _look_cells


def test_a_column_shows_its_own_model():
    """A model's name may be the beginning of another's."""
    words, picture = ["resnet18d", "resnet18"], Image.new("RGB", (1, 1))
    page = SimpleNamespace(
        bench=SimpleNamespace(models=dict.fromkeys(words)), bars_of=lambda shown: ""
    )
    answers = {word: {"cat": 1.0} for word in words}
    shown = Shown({"contexts of resnet18d": picture}, answers)
    _, _, first, _, _, second = _look_cells(page, words, shown)
    assert first is picture
    assert second is None
