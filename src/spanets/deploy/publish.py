"""Publishes a checkpoint as timm does: config.json, model.safetensors and a model card.

After `import spanets`, `timm.create_model("local-dir:FOLDER", pretrained=True)` loads the result,
or "hf-hub:OWNER/NAME" from a hub. The result holds only weights, class names, preprocessing, recipe
and metrics, without local paths.
"""

import copy
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import EvalResult, HfApi, ModelCardData
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id
from timm.models import save_for_hf
from torch import nn

import spanets
from spanets.checkpoint import ModelInfo, read_own
from spanets.deploy.model_folder import CONFIG, FILES, SPACE_FILES, check_folder, place, sign
from spanets.deploy.space import write_space
from spanets.recipe.yaml_text import dump_yaml
from spanets.runs.file_names import RESULTS
from spanets.sources import HUB, PIXELS, TASK_KEY, build_source
from spanets.tasks import load_task
from spanets_runtime.arrays import PIXEL_KEYS
from spanets_runtime.errors import UsageError, UserError, first_line
from spanets_runtime.markdown import code_block, code_span, escape_markdown
from spanets_runtime.onnx import is_exported
from spanets_runtime.text import escape_controls

# Recipe keys that hold local paths or the destinations of logs.
_PLACES = (
    ("data", "root"),
    ("data", "images"),
    ("data", "cache"),
    ("model", "weights"),
    ("distill", "teacher"),
    ("trainer", "logger_args"),
)

_PROBLEM_TYPES = {"multilabel": "multi_label_classification", "regression": "regression"}
"""transformers' names for what outputs mean, by task; without one it takes their softmax."""

_PAPERS = {
    "spanet": "Yun et al., SPANet: Frequency-balancing Token Mixer using Spectral Pooling "
    "Aggregation Modulation, ICCV 2023",
    "spanetv2": "Yun et al., Spectral-Adaptive Modulation Networks for Visual Perception, "
    "TPAMI 2026",
}

_DATA_NOTES = {
    "elpv": "The images (ELPV, Deitsch et al., Solar Energy 185, 2019) are licensed under "
    "CC BY-NC-SA 4.0: no commercial use.",
}


def publish(
    checkpoint: Path,
    to: str,
    licence: str | None = None,
    message: str | None = None,
    as_space: bool = False,
) -> list[str]:
    """Writes a classifier's checkpoint as a repository in timm's format.

    Args:
        checkpoint: Checkpoint of `spanets train`. Metrics come from results.json beside it, if
            they belong to this checkpoint.
        to: A folder, or "hf-hub:OWNER/NAME". huggingface_hub's settings apply: `HF_ENDPOINT`,
            `HF_TOKEN` or the login. A missing repository is created.
        licence: Licence of the weights by its name on the hub, such as "mit"; None names none.
        message: Commit message on the hub.
        as_space: Whether to write a Hugging Face Space, which shows the model with the explorer.

    Returns:
        Paths or addresses of the written files.

    Raises:
        UsageError: malformed destination or licence, or a folder with files that no push wrote.
        UserError: unreadable checkpoint, checkpoint of another task, or an error of the hub.
    """
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence):
        raise UsageError(f"--licence is {licence!r}, must be a name of the hub's, such as mit")
    on_hub, names = to.startswith(HUB), SPACE_FILES if as_space else FILES
    name = to.removeprefix(HUB)
    if on_hub:
        _check_repository(name)
    else:
        check_folder(Path(name), names)
    if message is not None and not on_hub:
        raise UsageError("--message goes with a repository on the hub, --to hf-hub:OWNER/NAME")
    if is_exported(checkpoint):
        raise UsageError(
            f"{checkpoint} is an exported file; give the checkpoint it was exported from"
        )
    info, content = read_own(checkpoint)
    task = load_task(info.task)
    if not task.is_image_level:
        raise UserError(f"{checkpoint}: is for {info.task}; timm's format holds only classifiers")
    model, own = task.publishable(build_source(checkpoint, info, content))
    results = _read_results(checkpoint)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write_model(model, info, own, folder)
        source = f"{HUB}{name}" if on_hub and not as_space else "local-dir:FOLDER"
        title = escape_controls(Path(name).resolve().name)
        text = write_model_card(info, results, licence, source, title)
        (folder / "README.md").write_text(text, "utf-8")
        if as_space:
            write_space(folder, title, licence)
        sign(folder, names)
        if on_hub:
            return [_upload(folder, name, message or f"{info.model}, by spanets {info.version}")]
        return place(folder, Path(name), names)


def _check_repository(name: str) -> None:
    try:
        validate_repo_id(name)
        if "/" not in name:
            raise HFValidationError(f"{name!r} has no owner")
    except HFValidationError as error:
        raise UsageError(
            f"--to is {HUB}{name}, must be hf-hub:OWNER/NAME ({first_line(error)})"
        ) from None


def _write_model(model: nn.Module, info: ModelInfo, own: Mapping[str, Any], folder: Path) -> None:
    # timm refuses keys in `pretrained_cfg` that it does not know.
    pixels = {key: value for key, value in info.preprocessing.items() if key in PIXEL_KEYS}
    known = {key: value for key, value in info.preprocessing.items() if key not in pixels}
    config: dict[str, Any] = {"label_names": info.classes, "pretrained_cfg": known}
    if info.task in _PROBLEM_TYPES:
        config["problem_type"] = _PROBLEM_TYPES[info.task]
    if own:
        config[TASK_KEY] = {"name": info.task, **own}
    if pixels:
        config[PIXELS] = pixels
    save_for_hf(
        model,
        str(folder),
        model_config=config,
        model_args=info.model_args,
        safe_serialization=True,
    )
    # timm repeats num_classes in the arguments. transformers passes both on, and would fail.
    written = json.loads((folder / CONFIG).read_text("utf-8"))
    written.get("model_args", {}).pop("num_classes", None)
    (folder / CONFIG).write_text(json.dumps(written, indent=2), "utf-8")


def _upload(folder: Path, repository: str, message: str) -> str:
    """Creates the repository if it is missing, and commits the folder to it."""
    files = sorted(path.name for path in folder.iterdir())
    kind: dict[str, Any] = {"repo_type": "space"} if "app.py" in files else {}
    try:
        hub = HfApi(library_name="spanets", library_version=spanets.__version__)
        sdk: dict[str, Any] = {"space_sdk": "gradio"} if kind else {}
        hub.create_repo(repository, exist_ok=True, **kind, **sdk)
        commit = hub.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message=message,
            allow_patterns=files,
            **kind,
        )
    except LocalTokenNotFoundError:
        raise UserError(f"{repository}: {_NO_TOKEN}") from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        reason = _NO_TOKEN if status == 401 else str(error).strip().splitlines()[-1]
        raise UserError(f"{repository}: the hub refused ({status}): {reason}") from error
    except Exception as error:
        if not _is_of_connection(error):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{repository}: the hub cannot be reached ({reason})") from error
    return commit.commit_url


def _is_of_connection(error: Exception) -> bool:
    """Whether an error is a connection error, of any library that huggingface_hub uses."""
    return isinstance(error, OSError) or type(error).__module__.startswith(("httpx", "requests"))


_NO_TOKEN = "no token that may write there; set HF_TOKEN, or run: hf auth login"


# ---- the model info


def write_model_card(
    info: ModelInfo, results: Mapping[str, Any], licence: str | None, source: str, name: str
) -> str:
    """Returns README.md: hub metadata, description, usage and recipe.

    Args:
        info: Metadata of the checkpoint.
        results: Content of results.json; {} if there is none.
        licence: Licence of the weights.
        source: Name by which timm loads the model.
        name: Name of the model on the hub.
    """
    parts = [
        f"---\n{_metadata(info, results, licence, name)}\n---",
        f"# {escape_markdown(name)}",
        f"An {load_task(info.task).noun}, {code_span(info.model)}, trained with spanets "
        f"{escape_markdown(info.version)}. "
        f"{_paper(info)}".rstrip(),
        f"## Classes\n\n{_name_classes(info.classes)}",
        f"## Measured\n\n{_tabulate(results)}",
        f"## Use\n\n{_usage(source, info)}",
        f"## Licence\n\n{_licence(info, licence)}",
        f"## Recipe\n\n{code_block(dump_yaml(_without_places(info.recipe)), 'yaml')}",
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(info: ModelInfo, results: Mapping[str, Any], licence: str | None, name: str) -> str:
    # The hub has no name for models of numbers.
    is_classifier = _PROBLEM_TYPES.get(info.task) != "regression"
    measured = [
        EvalResult(
            task_type="image-classification" if is_classifier else "other",
            dataset_type="imagefolder",
            dataset_name=_data_name(info),
            dataset_split=str(results["data"]),
            metric_type=escape_controls(metric),
            metric_value=round(value, 4),
        )
        for metric, value in results.get("metrics", {}).items()
        if value is not None
    ]
    return ModelCardData(
        license=licence,
        library_name="timm",
        pipeline_tag="image-classification" if is_classifier else None,
        tags=["image-classification" if is_classifier else info.task, "timm", "spanets"],
        model_name=escape_controls(name),
        eval_results=measured or None,
    ).to_yaml()


def _data_name(info: ModelInfo) -> str:
    """Returns the data set's name; a folder's name stays private."""
    source = info.recipe.get("data", {}).get("source", "folder")
    return "ELPV" if source == "elpv" else "a folder of images"


def _paper(info: ModelInfo) -> str:
    paper = _PAPERS.get(info.model.split("_")[0])
    return f"The architecture is that of {paper}." if paper else ""


def _name_classes(classes: list[str], most: int = 50) -> str:
    shown = ", ".join(code_span(escape_controls(name)) for name in classes[:most])
    rest = f", and {len(classes) - most} more in config.json" if len(classes) > most else ""
    return f"{len(classes)}: {shown}{rest}."


def _tabulate(results: Mapping[str, Any]) -> str:
    if not results:
        return "No metrics of these weights were recorded."
    metrics = results["metrics"].items()
    rows = [f"| {escape_markdown(name)} | {_number(value)} |" for name, value in metrics]
    title = f"On {results['images']} images ({results['data']}):"
    return "\n".join([title, "", "| metric | value |", "| --- | ---: |", *rows])


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _usage(source: str, info: ModelInfo) -> str:
    """Returns code that uses the model: with timm, or, for channels that timm lacks, without."""
    lines = load_task(info.task).usage
    if info.preprocessing.keys() & set(PIXEL_KEYS):
        named = lines.replace('model.pretrained_cfg["label_names"]', "source.info.classes")
        return f"""```python
import spanets
import torch

source = spanets.open_source("{source.removeprefix("local-dir:")}")
model = source.network
picture = source.preprocess.read("IMAGE")  # a file; with data.bands, that of the first band
image = torch.from_numpy(source.preprocess(picture))[None]
{named}
```"""
    return f"""```python
import timm
import spanets  # registers the models with timm

model = timm.create_model("{source}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
image = transform(picture)[None]  # a PIL image, in RGB
{lines}
```"""


def _licence(info: ModelInfo, licence: str | None) -> str:
    text = f"Of the weights: {licence}." if licence else "None was given for these weights."
    note = _DATA_NOTES.get(info.recipe.get("data", {}).get("source", ""))
    return f"{text} {note}" if note else text


def _without_places(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a recipe without local paths."""
    kept = copy.deepcopy(dict(recipe))
    for section, key in _PLACES:
        if isinstance(kept.get(section), dict):
            kept[section].pop(key, None)
    return kept


def _read_results(checkpoint: Path) -> dict[str, Any]:
    """Returns a checkpoint's metrics from results.json beside it, or {}."""
    try:
        found = json.loads((checkpoint.parent / RESULTS).read_text("utf-8"))
        if os.path.basename(found["checkpoint"]) != checkpoint.name:
            return {}  # the metrics belong to the last epoch, not to this checkpoint
        metrics = {
            str(name): None if value is None else float(value)
            for name, value in found["metrics"].items()
        }
        part = found["data"] if found["data"] in ("val", "test") else "another folder"
        return {"metrics": metrics, "images": int(found["images"]), "data": part}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
