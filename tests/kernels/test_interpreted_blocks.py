"""Blocks whose layers the kernels stand for are as good as plain ones: by Triton's interpreter.

`test_kernels.py` starts this in a process.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from absent_gpu import ACTIVE, taken
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils.checkpoint import checkpoint

pytestmark = pytest.mark.skipif(not ACTIVE, reason="Triton is told when it is imported")

if ACTIVE:
    from timm.layers import GroupNorm1

    from spanets.backbones.block import Block
    from spanets.backbones.layers import PointwiseMlp
    from spanets.kernels.fused import fuse
    from spanets.mixers.spam import SPAM

DIM = 8


def make_block(branch_scale: str = "res_scale", drop_path: float = 0.0) -> "Block":
    torch.manual_seed(0)
    block = fuse(Block(DIM, SPAM, PointwiseMlp, GroupNorm1, branch_scale, drop_path))
    for parameter in block.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return block


def images(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(shape or (2, DIM, 5, 7), dtype=dtype).to(memory_format=torch.channels_last)


def gradients(block: "Block", call: Callable[..., Tensor]) -> list[Tensor]:
    x = images().requires_grad_()
    inputs = [x, *block.parameters()]
    return list(torch.autograd.grad(call(x).square().sum(), inputs))


def agree(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-5 * float(their.abs().max()))


def test_a_block_has_the_gradients_of_plain_layers() -> None:
    block = make_block()
    theirs = gradients(block, block)
    with taken():
        agree(gradients(block, block), theirs)


@pytest.mark.slow
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing(reentrant: bool) -> None:
    block = make_block()
    plain = gradients(block, block)
    for parameter in block.parameters():
        parameter.grad = None
    with taken():
        x = images().requires_grad_()
        checkpoint(block, x, use_reentrant=reentrant).square().sum().backward()
    agree([x.grad, *(parameter.grad for parameter in block.parameters())], plain)


@pytest.mark.slow
def test_kept_tensors_may_come_back_in_another_layout() -> None:
    block = make_block()
    plain = gradients(block, block)

    def away(x: Tensor) -> Tensor:
        return torch.empty(x.shape, dtype=x.dtype).copy_(x)  # as `save_on_cpu` packs them

    with taken(), torch.autograd.graph.saved_tensors_hooks(away, lambda x: x):
        agree(gradients(block, block), plain)


# Every layer whose work a kernel does, and the block's dropped paths.
WATCHED = (
    "norm1",
    "token_mixer",
    "token_mixer.proj_in",
    "token_mixer.conv_row",
    "token_mixer.conv_column",
    "token_mixer.context",
    "token_mixer.proj_out",
    "drop_path1",
    "norm2",
    "mlp",
    "mlp.fc1",
    "mlp.act",
    "mlp.fc2",
    "drop_path2",
)


def _forward_hook(layer: nn.Module, calls: list[str]) -> Any:
    return layer.register_forward_hook(lambda *_: calls.append("forward"))


def _forward_pre_hook(layer: nn.Module, calls: list[str]) -> Any:
    return layer.register_forward_pre_hook(lambda *_: calls.append("before"))


def _backward_hook(layer: nn.Module, calls: list[str]) -> Any:
    return layer.register_full_backward_hook(lambda *_: calls.append("backward"))


def _backward_pre_hook(layer: nn.Module, calls: list[str]) -> Any:
    return layer.register_full_backward_pre_hook(lambda *_: calls.append("before backward"))


def _own_forward(layer: nn.Module, calls: list[str]) -> None:
    forward = layer.forward

    def watched(*args: Any) -> Any:
        calls.append("own")
        return forward(*args)

    layer.forward = watched  # type: ignore[method-assign]


@pytest.mark.parametrize("name", WATCHED)
@pytest.mark.parametrize(
    ("watch", "fused"),
    [
        (_forward_hook, True),
        pytest.param(_own_forward, True, marks=pytest.mark.slow),
        pytest.param(_forward_pre_hook, False, marks=pytest.mark.slow),
        pytest.param(_backward_hook, False, marks=pytest.mark.slow),
        pytest.param(_backward_pre_hook, False, marks=pytest.mark.slow),
    ],
)
def test_a_watched_layer_is_called(name: str, watch: Callable[..., Any], fused: bool) -> None:
    block = make_block()
    x = images(1, DIM, 2, 3, dtype=torch.float16 if fused else torch.float32)
    if fused:
        block.half().eval()
    else:
        x.requires_grad_()
    calls: list[str] = []
    watch(block.get_submodule(name), calls)
    with taken(), torch.no_grad() if fused else nullcontext():
        out = block(x)
        if not fused:
            out.sum().backward()
    assert len(calls) == 1


def test_hooks_of_all_modules_see_all_layers() -> None:
    block, calls = make_block(), []
    handle = torch_module.register_module_forward_hook(lambda layer, *_: calls.append(layer))
    try:
        with taken():
            block(images())
    finally:
        handle.remove()
    called = [layer for layer in block.modules() if not isinstance(layer, nn.ModuleList)]
    assert len(calls) == len(called)


@torch.no_grad()
def test_paths_may_be_dropped_in_an_evaluated_block() -> None:
    block = make_block(drop_path=0.5).half().eval()
    block.drop_path1.train()
    block.drop_path2.train()
    x = images(1, DIM, 2, 3, dtype=torch.float16)
    with taken():
        outputs = {float(block(x).double().sum()) for _ in range(12)}
    assert len(outputs) > 1


@pytest.mark.parametrize("channels", [8, 136])
@torch.no_grad()
def test_float16_has_room_for_large_residuals(channels: int) -> None:
    torch.manual_seed(0)
    block = fuse(Block(channels, SPAM, PointwiseMlp, GroupNorm1, "res_scale")).half().eval()
    for norm in (block.norm1, block.norm2):
        nn.init.constant_(norm.weight, 8)
    for layer in (block.token_mixer.proj_in, block.mlp.fc1):
        nn.init.normal_(layer.weight, std=channels**-0.5)
    x = 6000 * images(1, channels, 6, 7, dtype=torch.float16)
    plain = block(x)
    with taken():
        fused = block(x)
    assert plain.isfinite().all()
    torch.testing.assert_close(fused, plain, rtol=1e-2, atol=50)


def test_a_dilated_convolution_stays_dilated() -> None:
    block = make_block()
    block.token_mixer.conv_row.dilation = (1, 2)
    block.token_mixer.conv_row.padding = (0, 6)
    plain = block(images())
    with taken():
        torch.testing.assert_close(block(images()), plain, rtol=1e-4, atol=1e-4)


def test_transforms_of_functions_take_plain_layers() -> None:
    block = make_block()
    parameters = dict(block.named_parameters())

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(block, parameters, (x[None],)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))
    plain = each(parameters, images())
    with taken():
        ours = each(parameters, images())
    agree(list(ours.values()), list(plain.values()))
