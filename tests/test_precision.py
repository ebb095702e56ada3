"""Number formats, memory layouts, compilers and exporters: the same function in all of them."""

import copy

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils._python_dispatch import TorchDispatchMode

# Errors relative to the largest logit, over the whole network; measured over all variants.
FLOAT32 = 1e-5  # rounding, measured 1.5e-6 at most
# 11 bits, 5e-4 an operation, and 8 bits, 4e-3. Measured in bfloat16: 2.4e-2 at most for SPANet,
# 0.124 for SPANetV2, whose StarReLU doubles a relative error in every MLP (0.093 for timm's
# ConvFormer-M36, of the same MLP with weights of the same kind); a tenth of it in float16.
FLOAT16 = {"spanet": 1e-2, "spanetv2": 2e-2}
BFLOAT16 = {"spanet": 5e-2, "spanetv2": 0.16}

CHANNELS_LAST = torch.channels_last


def images(*size: int, batch: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, *size, generator=generator)


def error(ours: Tensor, theirs: Tensor) -> float:
    return ((ours.double() - theirs.double()).abs().max() / theirs.abs().max()).item()


class Recorder(TorchDispatchMode):
    """Names the operations that run, and the number formats that they give."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.formats: set[torch.dtype] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.names.add(str(func))
        results = result if isinstance(result, (tuple, list)) else [result]
        self.formats |= {r.dtype for r in results if isinstance(r, Tensor)}
        return result


def family(name: str) -> str:
    return name.split("_")[0]


def transforms(names: set[str]) -> set[str]:
    return {name for name in names if "fft" in name or "complex" in name}


# ---- number formats


def test_double_matches_float(shared_small):
    x = images(64, 48)
    with torch.no_grad():
        expected = copy.deepcopy(shared_small).double()(x.double())
        assert expected.dtype == torch.float64
        assert error(shared_small(x), expected) < FLOAT32


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, BFLOAT16), (torch.float16, FLOAT16)]
)
def test_half_precision(small, shared_small, dtype, tolerance):
    x = images(64, 48)
    half = copy.deepcopy(shared_small).to(dtype)
    with torch.no_grad():
        logits = half(x.to(dtype))
        assert logits.dtype == dtype
        assert error(logits, shared_small(x)) < tolerance[family(small)]


def test_autocast(name, model):
    x = images(64, 48)
    with torch.no_grad():
        expected = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(x)
    assert logits.dtype == torch.bfloat16
    assert error(logits, expected) < BFLOAT16[family(name)]


@pytest.mark.parametrize("by_fft", [False, True])
def test_training_under_autocast(small, products, build, by_fft):
    method = "fft" if by_fft else products
    model = build(small, num_classes=3, spectral_method=method).train()
    x = images(64, 48, batch=2)
    model(x).square().sum().backward()
    expected = {key: value.grad.clone() for key, value in model.named_parameters()}
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(x).square().sum()
    loss.backward()
    for key, value in model.named_parameters():
        assert value.grad.dtype == torch.float32
        # A gradient passes the network twice, so its error is larger than that of the logits.
        # That of one number for a whole map (StarReLU's) is a sum that may cancel.
        if value.numel() > 1:
            limit = 4 * BFLOAT16[family(small)] * expected[key].norm()
            assert (value.grad - expected[key]).norm() < limit, key


def test_another_format_after_a_forward_pass(small, shared_small):
    """What was cached for one number format is not used for another."""
    model = copy.deepcopy(shared_small)
    x = images(56, 48)
    with torch.no_grad():
        expected = model(x)
        half = model.bfloat16()(x.bfloat16())
        assert half.dtype == torch.bfloat16
        assert error(half, expected) < BFLOAT16[family(small)]
        wide = model.double()(x.double())
        # The weights kept 8 bits on the way through bfloat16, the computation did not.
        assert error(wide, half) < BFLOAT16[family(small)]
        assert error(model.float()(x), wide) < FLOAT32


# ---- memory layouts


@pytest.mark.parametrize("weights", [torch.contiguous_format, CHANNELS_LAST])
@pytest.mark.parametrize("layout", [torch.contiguous_format, CHANNELS_LAST])
def test_memory_layouts(shared_small, layout, weights):
    model = copy.deepcopy(shared_small).to(memory_format=weights)
    x = images(64, 48, batch=2)
    with torch.no_grad():
        expected = shared_small.forward_intermediates(x)[1]
        maps = model.forward_intermediates(x.contiguous(memory_format=layout))[1]
    for ours, theirs in zip(maps, expected, strict=True):
        assert error(ours, theirs) < FLOAT32
        if layout == CHANNELS_LAST:
            assert ours.is_contiguous(memory_format=CHANNELS_LAST)


# ---- compilers and exporters


@pytest.fixture
def shallow(smallest, build) -> nn.Module:
    """One block a stage: compiling takes time for each."""
    return build(smallest, depths=(1, 1, 1, 1)).eval()


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow  # test_recorders.py compiles in every run
@pytest.mark.filterwarnings("error:.*Dynamo")  # a compiler has nothing to say about our code
def test_compiled_in_one_graph(shallow, fresh_compiler):
    x = images(64, 48, batch=2)
    compiled = torch.compile(shallow.train(), backend="aot_eager", fullgraph=True)
    shallow(x).square().sum().backward()
    expected = [value.grad.clone() for value in shallow.parameters()]
    shallow.zero_grad()
    compiled(x).square().sum().backward()
    assert error(compiled(x), shallow(x)) < FLOAT32
    for value, gradient in zip(shallow.parameters(), expected, strict=True):
        assert error(value.grad, gradient) < 10 * FLOAT32  # sums over both passes


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_for_any_size(shallow, fresh_compiler, backend):
    compiled = torch.compile(shallow, backend=backend, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for size in [(64, 96), (45, 70), (97, 36)]:
            x = images(*size, batch=2)
            assert error(compiled(x), shallow(x)) < FLOAT32


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [{}, {"features_only": True}],
    ids=["logits", "maps"],
)
def test_exported_for_any_size(smallest, build, arguments):
    model = build(smallest, depths=(1, 1, 1, 1), **arguments).eval()
    # Below 35 pixels the last map has one row, and tensors of one row are laid out differently:
    # the exporter calls for 35, of other networks for more.
    sizes = {0: Dim("batch"), 2: Dim("height", min=35), 3: Dim("width", min=35)}
    program = torch.export.export(
        model, (images(64, 96, batch=2),), dynamic_shapes=(sizes,), strict=False
    )
    assert not transforms({str(node.target) for node in program.graph.nodes})
    exported = program.module()
    with torch.no_grad():
        for size, batch in [((64, 96), 2), ((35, 47), 1), ((97, 40), 3)]:
            x = images(*size, batch=batch)
            ours, theirs = exported(x), model(x)
            if isinstance(theirs, Tensor):
                ours, theirs = [ours], [theirs]
            assert len(ours) == len(theirs)
            for a, b in zip(ours, theirs, strict=True):
                assert a.shape == b.shape
                assert error(a, b) < FLOAT32


def test_runs_without_a_fourier_transform(name, model, skeleton):
    """SPANet nowhere; SPANetV2 where there is no fast one, of which the meta device stands here."""
    with torch.no_grad(), Recorder() as recorded:
        skeleton(torch.empty(1, 3, 32, 32, device="meta"))
        if name.startswith("spanet_"):
            model(images(32, 32))
    assert any("convolution" in name for name in recorded.names)
    assert not transforms(recorded.names)
    assert not any(dtype.is_complex for dtype in recorded.formats)


def test_runs_with_a_fourier_transform_where_asked(small, build):
    model = build(small, spectral_method="fft")
    with torch.no_grad(), Recorder() as recorded:
        model(images(32, 32))
    assert transforms(recorded.names)
    assert torch.complex64 in recorded.formats


def test_methods_are_the_same_function(small, products, shared_small):
    x = images(64, 45)
    with torch.no_grad():
        for method in (products, "fft"):
            other = timm.create_model(small, device="meta", spectral_method=method).eval()
            other.load_state_dict(shared_small.state_dict(), assign=True)
            assert error(other(x), shared_small(x)) < FLOAT32
