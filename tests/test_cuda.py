"""The networks on a GPU against the CPU in float64: eager, compiled, in half precision."""

import copy
from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.utils import reparameterize_model
from torch import Tensor, nn

from spanets import kernels

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

NAMES = ("spanet_nano", "spanetv2_nano_pure", "spanetv2_nano_hybrid")
LIMITS = {torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


def build(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.02)
    return model, torch.randn(4, 3, 97, 130)


def distance(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.cpu().double() - theirs).norm() / theirs.norm())


def gradients(model: nn.Module, images: Tensor) -> Tensor:
    model.zero_grad()
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    F.cross_entropy(model(images), labels).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("wrap", [lambda model: model, torch.compile], ids=["eager", "compiled"])
@torch.no_grad()
def test_logits(name: str, dtype: torch.dtype, wrap: Callable[[nn.Module], nn.Module]) -> None:
    model, images = build(name)
    want = copy.deepcopy(model).double().eval()(images.double())
    network = wrap(model.to("cuda", dtype).eval())
    assert distance(network(images.to("cuda", dtype)), want) < LIMITS[dtype]


@pytest.mark.parametrize("dtype", LIMITS)
@torch.no_grad()
def test_a_network_of_wide_stages(dtype: torch.dtype) -> None:
    model, images = build("spanet_small")
    want = copy.deepcopy(model).double().eval()(images.double())
    for network in (model.eval(), reparameterize_model(model.eval())):
        network = copy.deepcopy(network).to("cuda", dtype)
        assert distance(network(images.to("cuda", dtype)), want) < LIMITS[dtype]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_gradients(name: str, half: bool, compiled: bool) -> None:
    model, images = build(name)
    want = gradients(copy.deepcopy(model).double(), images.double())
    model = model.cuda()
    if compiled:
        model.compile()
    with torch.autocast("cuda", torch.bfloat16, enabled=half):
        got = gradients(model, images.cuda())
    assert distance(got, want) < (6e-2 if half else 2e-5)


@torch.no_grad()
def test_sizes_of_a_compiled_network_may_change() -> None:
    model, images = build("spanet_nano")
    model, images = model.cuda().eval(), images.cuda()
    network = torch.compile(model, dynamic=True)
    for part in (images, images[:2, :, :64], images[:1, :, :, :100]):
        assert distance(network(part), model(part).cpu().double()) < 2e-5


def test_images_of_any_layout_take_the_kernels() -> None:
    model, images = build("spanet_nano")
    seen = []
    mixer = model.cuda().stages[0].blocks[0].token_mixer
    mixer.proj_in.register_forward_hook(lambda *call: seen.append(kernels.is_supported(call[2])))
    model(images.cuda())
    assert seen == [True]


@torch.no_grad()
def test_hooks_are_called_where_kernels_would_stand_for_layers() -> None:
    model, images = build("spanet_nano")
    block = model.to("cuda", torch.bfloat16).eval().stages[0].blocks[0]
    images = images.to("cuda", torch.bfloat16)
    plain, called = model(images), []
    for layer in (block.token_mixer.conv_row, block.token_mixer.context, block.mlp.act):
        layer.register_forward_hook(lambda *call: called.append(call[0]))
    watched = model(images)
    assert len(called) == 3
    assert distance(watched, plain.cpu().double()) < LIMITS[torch.bfloat16]
