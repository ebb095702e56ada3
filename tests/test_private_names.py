"""Private names of other libraries that the package uses: each is still there, and no other is.

The reason stands where a name is used. A name that is gone fails here and not in a user's run.
"""

import ast
import pkgutil
from pathlib import Path

import lightning as L
import pytest
import timm.optim.muon
import torch
import torch.overrides
from PIL import Image
from timm.models import _features
from torch import nn
from torch.nn.modules import batchnorm, module
from torch.utils import _device, _python_dispatch
from torch.utils.data import DataLoader, dataloader
from torchmetrics import MeanMetric

import spanets

HOOKS = ("forward", "forward_pre", "backward", "backward_pre")
LOOP = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu").fit_loop.epoch_loop

NAMES = [
    # spanets/kernels/forms.py: whether a layer is as it was built
    *((nn.Module(), f"_{kind}_hooks") for kind in HOOKS),
    *((module, f"_global_{kind}_hooks") for kind in HOOKS),
    (nn.Module(), "_parameters"),
    (torch, "_subclasses"),
    (torch._subclasses, "FakeTensor"),
    (torch._subclasses.functional_tensor, "FunctionalTensor"),
    # spanets/spectral/tracing.py: what runs the code
    (torch.compiler, "_is_exporting_flag"),
    (torch, "_C"),
    (torch._C, "_are_functorch_transforms_active"),
    (torch._C, "_len_torch_function_stack"),
    (torch._C, "_get_tracing_state"),
    (torch._C, "_set_tracing_state"),
    (torch.overrides, "_get_current_function_mode_stack"),
    (_device, "DeviceContext"),
    # spanets/spectral/constants.py: real tensors while something is traced
    (_python_dispatch, "_disable_current_modes"),
    # spanets/backbones/pyramid.py and registry.py: maps
    (_features, "FeatureGetterNet"),
    (_features, "feature_take_indices"),
    # spanets/mixers/adaptive.py: refused weights
    (nn.Module(), "_load_from_state_dict"),
    # spanets/bench/costs.py: operators of Fourier transforms
    *((torch.ops.aten, f"_fft_{kind}") for kind in ("r2c", "c2r", "c2c")),
    # spanets/bench/compare.py: limits of the compiler
    (torch, "_dynamo"),
    # spanets/data/worker_processes.py: processes that cannot start
    (DataLoader, "_get_iterator"),
    (dataloader, "_BaseDataLoaderIter"),
    (dataloader, "_MultiProcessingDataLoaderIter"),
    # spanets/training/batch_norm.py
    (batchnorm, "_BatchNorm"),
    # spanets/training/muon.py: many tensors in one call, and the names of coefficients
    *((torch, f"_foreach_{name}") for name in ("mul_", "lerp_", "lerp")),
    (timm.optim.muon, "_COEFFICIENTS"),
    # spanets/training/sums.py: exact means, and those of an epoch under way
    (MeanMetric(), "_apply"),
    (MeanMetric(), "_defaults"),
    (LOOP, "_results"),
    # spanets_runtime/decoding/jpeg.py: whether a decoder has taken all bytes
    (Image, "_getdecoder"),
]

STANDARD = {"_exit"}  # os._exit, which is documented
"""Names with an underscore that are public."""


@pytest.mark.parametrize(("owner", "name"), NAMES, ids=[name for _, name in NAMES])
def test_it_is_there(owner: object, name: str) -> None:
    assert hasattr(owner, name)


def test_what_they_are_used_for() -> None:
    """Attributes and arguments that go with them."""
    assert "callback" in LOOP._results.metrics(on_step=False)
    assert {"mean_value", "weight"} <= MeanMetric()._defaults.keys()
    limits = torch._dynamo.config
    assert hasattr(limits, "recompile_limit") or hasattr(limits, "cache_size_limit")


@pytest.mark.parametrize("file", ["imagenet_real_labels.json", "imagenet_a_synsets.txt"])
def test_files_of_timm_are_there(file: str) -> None:
    """spanets/data/sources/imagenet.py reads labels and classes from them."""
    assert pkgutil.get_data("timm.data", f"_info/{file}")


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.endswith("__") for part in name.split("."))


def test_no_other_is_used() -> None:
    ours, used = {"_exit"}, {}  # os._exit is documented
    for folder in ("spanets", "spanets_cli", "spanets_runtime"):
        for path in (Path(spanets.__file__).parent.parent / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    ours.add(node.name)
                elif isinstance(node, ast.Name | ast.Attribute):
                    name = node.id if isinstance(node, ast.Name) else node.attr
                    if isinstance(node.ctx, ast.Store):
                        ours.add(name)
                    elif is_private(name):
                        used[name] = f"{path}:{node.lineno}"
                elif isinstance(node, ast.Import | ast.ImportFrom):
                    module = getattr(node, "module", None) or ""
                    for alias in node.names:
                        if is_private(f"{module}.{alias.name}"):
                            used[alias.name] = f"{path}:{node.lineno}"
    known = {name for _, name in NAMES} | ours
    assert not {place for name, place in used.items() if name not in known}
