"""Turns a published folder into a Hugging Face Space, which shows the model with the explorer."""

from pathlib import Path
from typing import Any

import yaml

import spanets

GRADIO = "6.31.0"
"""Version of gradio in a Space: one with which the explorer was tested."""

_APP = '''"""Shows the model in this folder: answers, frequencies, balance."""

from pathlib import Path

from spanets.explore.server import serve_folder

if __name__ == "__main__":
    serve_folder(Path(__file__).parent)
'''


def write_space(folder: Path, title: str, licence: str | None) -> None:
    """Adds app.py and requirements.txt to a published folder, and a Space's metadata to its card.

    Args:
        folder: Folder with config.json, model.safetensors and README.md.
        title: Title of the Space.
        licence: Licence of the weights, or None.
    """
    (folder / "app.py").write_text(_APP, "utf-8")
    (folder / "requirements.txt").write_text(f"spanets[explore]=={spanets.__version__}\n", "utf-8")
    card = folder / "README.md"
    _, _, body = card.read_text("utf-8").split("---\n", 2)
    card.write_text(f"---\n{_metadata(title, licence)}---\n{body}", "utf-8")


def _metadata(title: str, licence: str | None) -> str:
    values: dict[str, Any] = {
        "title": title,
        "emoji": "🔎",
        "colorFrom": "blue",
        "colorTo": "green",
        "sdk": "gradio",
        "sdk_version": GRADIO,
        "app_file": "app.py",
        "pinned": False,
    }
    if licence is not None:
        values["license"] = licence
    return yaml.safe_dump(values, allow_unicode=True, sort_keys=False)
