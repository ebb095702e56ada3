"""Models for the tests: every registered one, built in a moment and with nothing at rest.

Large variants take seconds to initialise, so they are built on the meta device and filled. The
values keep signals in size, and none is the 0 or 1 at which a part would have no effect.
"""

import os

# Before torch is imported: its threads cost small models time, and do not survive a fork.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import copy
import gc
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm
import torch
from hypothesis import HealthCheck, settings
from networks import structures
from small_runs import photos, process, refused, small_recipe, small_run  # noqa: F401 (fixtures)
from torch import nn

import spanets


def _smallest() -> list[str]:
    first: dict[str, str] = {}
    for name in spanets.list_models():
        first.setdefault(name.split("_")[0], name)
    return list(first.values())


DEAREST = ("test_export.py", "test_readme.py")

# Each takes more than eight seconds of a slow core. `make test-all` runs them, as all that is slow.
LONG = (
    "classification/test_wrong_labels.py::test_a_cross_validation_looks_at_all_images",
    "contract/test_graphs.py",
    "deploy/test_publish.py::test_the_hub_and_back",
    "detection/test_alone.py::test_batches_and_orders_change_nothing[cascade_mask_rcnn]",
    "detection/test_runs.py::test_the_exported_run_finds_the_same",
    "detection/test_runs.py::test_what_an_exported_detector_is_not_for",
    "examples/",
    "experiments/test_measuring.py::test_cells_are_measured_and_rules_read_it",
    "experiments/test_running.py",
    "kernels/test_kernels.py::test_kernels_agree_with_plain_torch",
    "multilabel/test_resume.py::test_a_resumed_run_is_the_uninterrupted_one",
    "regression/test_regression.py::test_the_exported_file_and_the_pushed_folder_agree",
    "regression/test_resume.py::test_a_resumed_run_is_the_uninterrupted_one",
    "test_recorders.py::test_a_short_network_recorded_at_length",
    "test_run_timm.py::test_a_script_finds_the_models_its_arguments_and_its_neighbours",
    "test_shared_commands.py::test_embed",
    "test_shared_commands.py::test_ranks_go_on_with_the_results_of_one",
    "test_site.py::test_notebook_of_the_mixer_runs",
    "training/test_distributed.py::test_a_signal_to_one_process_stops_all_at_one_update[15]",
    "training/test_finetune.py::test_a_resumed_run_equals_an_uninterrupted_one[balanced]",
    "training/test_resume.py::test_resumed_run_is_the_uninterrupted_one[frozen]",
)


@pytest.fixture(autouse=True)
def no_page(request: pytest.FixtureRequest) -> Iterator[None]:
    """Lets training in a test write no page of the run, unless the test is marked `page`.

    A page costs half a second, as much as the shortest runs. Runs of fixtures that tests share have
    theirs.
    """
    # Not by the fixture `monkeypatch`: it would begin before `tmp_path`, and so end after it, and
    # what a test patches in `os` would meet the removal of its folder.
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("page") is None:
            patch.setattr("spanets_cli.commands.train._report", lambda *_: None)
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks long tests as slow; puts tests that fork first, the dearest next.

    Once this process has exported a model, torch refuses to train in a process forked from it. None
    of the dearest is to be left to one worker at the end.
    """
    for item in items:
        if item.nodeid.removeprefix("tests/").startswith(LONG):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.path.name not in DEAREST)
    items.sort(key=lambda item: "process" not in getattr(item, "fixturenames", ()))


def pytest_configure(config: pytest.Config) -> None:
    """Sets how many examples a property is tried on, fewer in the default run.

    A busy machine may take any time for one.
    """
    busy: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    settings.register_profile("default run", max_examples=25, **busy)
    settings.register_profile("slow", max_examples=200, **busy)
    settings.load_profile("default run" if config.option.markexpr == "not slow" else "slow")


def pytest_collection_finish() -> None:
    """Takes what was imported out of the sight of the collector of garbage.

    It looks at all that lives, again and again: a tenth of the time of all tests.
    """
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Undoes that, so that libraries find what they are to free at the end."""
    gc.unfreeze()


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(name, marks=[pytest.mark.slow] * (name not in structures()))
        for name in spanets.list_models()
    ],
)
def name(request: pytest.FixtureRequest) -> str:
    """Each registered model's name. Tests are ordered so that one model is alive at a time.

    In the default run those that differ in more than their size: a new kind of model is tested from
    the day it is registered. Sizes have golden data and counts of parameters in every run.
    """
    return request.param


@pytest.fixture(scope="session", params=_smallest())
def small(request: pytest.FixtureRequest) -> str:
    """The smallest model of each family, for what is dear and the same at every size."""
    return request.param


@pytest.fixture(
    scope="session",
    params=[pytest.param(n, marks=[pytest.mark.slow] * (i > 0)) for i, n in enumerate(_smallest())],
)
def smallest(request: pytest.FixtureRequest) -> str:
    """As `small`, the first family alone in the default run: for what takes half a minute each."""
    return request.param


@pytest.fixture(scope="session")
def build() -> Callable[..., nn.Module]:
    """Returns `build(name, **arguments)`: `timm.create_model` with weights from a seed."""
    return _build


@pytest.fixture(scope="session")
def products(small: str) -> str:
    """The `spectral_method` of the family of `small` that needs no Fourier transform."""
    return {"spanet": "basis", "spanetv2": "matmul"}[small.split("_")[0]]


@pytest.fixture(scope="session")
def _shared(name: str) -> nn.Module:
    return _build(name).eval()


@pytest.fixture
def model(_shared: nn.Module) -> Iterator[nn.Module]:
    """Each registered classifier, evaluating; shared, so that a test must copy it to change it."""
    yield from _guarded(_shared)


def _guarded(model: nn.Module) -> Iterator[nn.Module]:
    versions = {key: value._version for key, value in model.state_dict().items()}
    yield model
    after = {key: value._version for key, value in model.state_dict().items()}
    assert after == versions, "a test wrote to shared weights"
    assert not any(value.grad is not None for value in model.parameters()), "a test left gradients"
    assert not any(module.training for module in model.modules()), "a test left training mode"


@pytest.fixture(scope="session")
def _shared_small(small: str) -> nn.Module:
    return _build(small).eval()


@pytest.fixture
def shared_small(_shared_small: nn.Module) -> Iterator[nn.Module]:
    """The smallest classifier of each family, shared as `model` is."""
    yield from _guarded(_shared_small)


@pytest.fixture(scope="session")
def _bare(name: str) -> nn.Module:
    return timm.create_model(name, device="meta").eval()


@pytest.fixture
def skeleton(_bare: nn.Module) -> nn.Module:
    """Each registered classifier without values, on the meta device, to be changed at will."""
    return copy.deepcopy(_bare)


def _build(name: str, seed: int = 0, **arguments: object) -> nn.Module:
    model = timm.create_model(name, device="meta", **arguments).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if value.ndim > 1:  # variance 1 / fan-in
                bound = math.sqrt(3 * len(value) / value.numel())
                value.uniform_(-bound, bound, generator=generator)
            elif key.endswith(("weight", "scale")):
                value.uniform_(0.7, 1.3, generator=generator)
            else:
                value.uniform_(-0.2, 0.2, generator=generator)
    for module in model.modules():  # buffers tell of arguments
        if list(module.buffers(recurse=False)):
            module.reset_parameters()
    return model
