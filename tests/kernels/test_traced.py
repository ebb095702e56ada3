"""torch.compile sees the kernels, for a GPU that is not there: graphs are made, not computed."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from absent_gpu import taken
from functorch.compile import min_cut_rematerialization_partition
from timm.layers import GroupNorm1
from torch import Tensor, fx, nn
from torch._dynamo.backends.common import aot_autograd
from torch.utils.checkpoint import checkpoint

from spanets.backbones.block import Block
from spanets.backbones.layers import PointwiseMlp
from spanets.kernels import availability
from spanets.kernels.fused import fuse
from spanets.mixers.spam import SPAM

if find_spec("triton") is None:
    pytest.skip("torch for the CPU alone", allow_module_level=True)

from triton.backends.compiler import GPUTarget
from triton.runtime import driver

pytestmark = pytest.mark.skipif(availability.triton is None, reason="too old a Triton")


class AbsentGpu:
    """What torch asks of Triton's driver while it reads a kernel."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 80, 32)

    def get_current_device(self) -> int:
        return 0


@pytest.fixture(autouse=True)
def _on_a_gpu() -> Iterator[None]:
    torch._dynamo.reset()
    before = dict(vars(driver))
    driver.set_active(AbsentGpu())
    try:
        with taken():
            yield
    finally:
        vars(driver).update(before)  # `reset_active` looks for a GPU
        torch._dynamo.reset()


Compiler = Callable[[fx.GraphModule, Sequence[Any]], Callable[[list[Any]], list[Any]]]


def answering_with_zeros(graphs: list[fx.GraphModule]) -> Compiler:
    """A compiler that keeps its graphs, whose results have the right shape and no content."""

    def compile_graph(graph: fx.GraphModule, _: Sequence[Any]) -> Callable[[list[Any]], list[Any]]:
        graphs.append(graph)
        inputs = [node.meta.get("val") for node in graph.graph.nodes if node.op == "placeholder"]
        (outputs,) = next(node for node in graph.graph.nodes if node.op == "output").args

        def run(arguments: list[Any]) -> list[Any]:
            sizes = {}
            for symbolic, value in zip(inputs, arguments, strict=True):
                if isinstance(symbolic, torch.SymInt):
                    sizes[symbolic.node.expr] = value
                elif isinstance(symbolic, Tensor):
                    pairs = zip(symbolic.shape, value.shape, strict=True)
                    sizes |= {s.node.expr: n for s, n in pairs if isinstance(s, torch.SymInt)}

            def number(size: Any) -> int:
                return int(size.node.expr.subs(sizes)) if isinstance(size, torch.SymInt) else size

            def answer(node: Any) -> Any:
                value = node.meta["val"] if isinstance(node, fx.Node) else node
                if not isinstance(value, Tensor):
                    return value if value is None else number(value)
                shape, strides = map(number, value.shape), map(number, value.stride())
                empty = torch.empty_strided(tuple(shape), tuple(strides), dtype=value.dtype)
                return empty.zero_()

            return [answer(node) for node in outputs]

        run._boxed_call = True  # type: ignore[attr-defined]
        return run

    return compile_graph


def traced(model: Callable[..., Any], dynamic: bool) -> tuple[Callable[..., Any], list[Any]]:
    graphs: list[fx.GraphModule] = []
    compiler = answering_with_zeros(graphs)
    backend = aot_autograd(
        fw_compiler=compiler,
        bw_compiler=compiler,
        partition_fn=partial(min_cut_rematerialization_partition, compiler="inductor"),
    )
    return torch.compile(model, backend=backend, dynamic=dynamic, fullgraph=True), graphs


def kernels_of(graph: fx.GraphModule) -> int:
    return sum("triton_kernel_wrapper" in str(node.target) for node in graph.graph.nodes)


def images(batch: int) -> Tensor:
    return torch.randn(batch, 24, 9, 11).to(memory_format=torch.channels_last)


def make_block() -> nn.Module:
    return fuse(Block(24, SPAM, PointwiseMlp, GroupNorm1, "res_scale"))


@pytest.mark.slow
@pytest.mark.parametrize("autocast", [False, True])
def test_a_step_has_one_pair_of_graphs_for_few_images_and_one_for_many(autocast: bool) -> None:
    step, graphs = traced(make_block(), dynamic=True)
    for batch in (2, 5, 31, 32, 80, 2100):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = step(images(batch))
        out.float().sum().backward()
    assert [kernels_of(graph) > 0 for graph in graphs] == [True] * 4


@pytest.mark.slow
def test_checkpointing() -> None:
    block = make_block()
    step, graphs = traced(lambda x: checkpoint(block, x, use_reentrant=False), dynamic=False)
    step(images(2)).sum().backward()
    assert [kernels_of(graph) > 0 for graph in graphs] == [True, True]


def test_inference() -> None:
    run, graphs = traced(make_block().half().eval(), dynamic=False)
    with torch.no_grad():
        run(images(2).half())
    assert [kernels_of(graph) > 0 for graph in graphs] == [True]
