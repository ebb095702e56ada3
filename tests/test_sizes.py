"""Images of any size, in any order, alone or in batches; nothing is kept from one to the next."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from spanets.spectral import pooling, rescaling

# Float32 rounding of the whole network, measured 2e-6 of the largest logit at most: another batch
# size takes the sums in another order.
ROUNDING = 1e-5


# It is deprecated, and warns of every size that it meets.
quiet_trace = pytest.mark.filterwarnings("ignore:.*jit", "ignore::torch.jit.TracerWarning")


def images(*size: int, batch: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, *size, generator=generator)


def final_size(side: int) -> int:
    """Rows of the last map: a 7-wide window in steps of 4 with 2 pixels around, halved thrice."""
    side = (side + 2 * 2 - 7) // 4 + 1
    for _ in range(3):
        side = (side + 1) // 2
    return side


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = ROUNDING) -> None:
    error = (ours - theirs).abs().max() / theirs.abs().max()
    assert error <= tolerance


def attributes(model: nn.Module) -> dict[str, dict[str, object]]:
    """What each module holds, by identity; containers of tensors and modules by content."""
    held = {}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            items = value.items() if isinstance(value, dict) else [("", value)]
            held |= {f"{name}/{key}/{k}": id(v) for k, v in items}
    return held


CACHES = (pooling._basis.cached, rescaling._hartley_matrices.cached, rescaling._unfolding.cached)


def clear_caches() -> None:
    for cached in CACHES:
        cached.cache_clear()


def cached() -> int:
    return sum(cache.cache_info().currsize for cache in CACHES)


@pytest.fixture
def no_cache():
    clear_caches()
    yield
    clear_caches()


@pytest.fixture
def by_products(small, products, build) -> nn.Module:
    """The smallest classifier of each family, by matrix products, whose matrices are cached."""
    return build(small, spectral_method=products).eval()


# ---- any size


# The shared model is the same for every example, as it should be.
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(height=st.integers(32, 150), width=st.integers(32, 150))
def test_any_size(shared_small, height, width):
    with torch.no_grad():
        features = shared_small.forward_features(images(height, width))
        logits = shared_small.forward_head(features)
    assert features.shape[2:] == (final_size(height), final_size(width))
    assert logits.shape == (1, shared_small.num_classes)
    assert logits.isfinite().all()


def test_a_size_is_not_remembered(model):
    """Smallest, odd, wide, tall, and back again: the same bits as before, nothing changed."""
    before = attributes(model)
    values = {key: value.clone() for key, value in model.state_dict().items()}
    sizes = [(32, 32), (33, 47), (40, 96), (96, 40)]
    with torch.no_grad():
        first = [model(images(*size)) for size in sizes]
        again = [model(images(*size)) for size in reversed(sizes)]
    for one, other in zip(first, reversed(again), strict=True):
        assert torch.equal(one, other)
        assert one.isfinite().all()
    assert attributes(model) == before
    assert all(torch.equal(value, values[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("size", [(31, 64), (64, 31), (1, 1), (0, 64)])
def test_too_small(skeleton, size):
    x = torch.empty(1, 3, *size, device="meta")
    for run in (skeleton, skeleton.forward_features, skeleton.forward_intermediates):
        with pytest.raises(ValueError, match=f"image is {size[0]}x{size[1]} pixels.* 32x32"):
            run(x)


@pytest.mark.parametrize("shape", [(64, 64), (3, 64, 64), (1, 1, 3, 64, 64)])
def test_no_batch_of_images(skeleton, shape):
    message = f"input has shape {shape}, must be".replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=message):
        skeleton(torch.empty(shape, device="meta"))


# ---- batches


def test_batch_is_its_images_one_by_one(model):
    x = images(45, 70, batch=3)
    with torch.no_grad():
        batch = model(x)
        assert_close(batch, torch.cat([model(image[None]) for image in x]))
    assert (batch[0] - batch[1]).abs().max() > 0.1 * batch.abs().max()


def test_batch_without_images(shared_small):
    with torch.no_grad():
        assert shared_small(images(64, 48, batch=0)).shape == (0, shared_small.num_classes)


def test_slices_and_transposed_images(shared_small):
    """Images that are views of something larger count for what they show."""
    x = images(70, 90, batch=2)
    views = [
        x[:, :, 3:67, ::2],
        x.transpose(2, 3)[..., :33],
        x.flip(3),
        x[:1].expand(2, -1, -1, -1),
    ]
    with torch.no_grad():
        for view in views:
            assert_close(
                shared_small(view), shared_small(view.clone(memory_format=torch.contiguous_format))
            )


# ---- the cached matrices


def test_training_after_inference_mode(by_products, no_cache):
    """A basis made in inference mode would be of no use to autograd."""
    model = by_products
    x = images(48, 40, batch=2)
    with torch.inference_mode():
        expected = model(x)
    assert cached() > 0
    model.train()(x).square().sum().backward()
    assert all(value.grad is not None for value in model.parameters())
    basis = pooling.low_frequency_basis(torch.empty(1, 10, 9), 2)
    assert not basis.is_inference()
    assert not basis.requires_grad
    with torch.inference_mode():
        assert torch.equal(model.eval()(x), expected)
    assert_close(model.train()(x).detach(), expected)


def _run_fake(model: nn.Module, x: Tensor) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        model(mode.from_tensor(x))


def _run_fake_around(model: nn.Module, x: Tensor) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        model(x)


def _run_meta(model: nn.Module, x: Tensor) -> None:
    copy.deepcopy(model).to("meta")(x.to("meta"))


def _run_export(model: nn.Module, x: Tensor) -> None:
    torch.export.export(model, (x,), strict=False)


def _run_jit_trace(model: nn.Module, x: Tensor) -> None:
    torch.jit.trace(model, x, check_trace=False)


def _run_make_fx(model: nn.Module, x: Tensor) -> None:
    torch.fx.experimental.proxy_tensor.make_fx(model)(x)


def _run_functional_gradient(model: nn.Module, x: Tensor) -> None:
    def loss(weights: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(model, weights, (x,)).square().sum()

    torch.func.grad(loss)(dict(model.named_parameters()))


@quiet_trace
@pytest.mark.parametrize(
    "run",
    [
        _run_fake,
        pytest.param(_run_fake_around, marks=pytest.mark.slow),
        _run_meta,
        pytest.param(_run_export, marks=pytest.mark.slow),
        _run_jit_trace,
        pytest.param(_run_make_fx, marks=pytest.mark.slow),
        pytest.param(_run_functional_gradient, marks=pytest.mark.slow),
    ],
)
def test_tracers_leave_no_basis_behind(by_products, no_cache, run):
    x = images(40, 48)
    with torch.no_grad():
        expected = by_products(x)
    clear_caches()
    run(by_products, x)
    with torch.no_grad():
        assert torch.equal(by_products(x), expected)
    basis = pooling.low_frequency_basis(torch.empty(1, 10, 12), 2)  # the first map of 40×48
    assert type(basis) is Tensor
    assert basis.device.type == "cpu"
    assert torch.equal(basis, pooling._basis.build((10, 12), 2, True, torch.float32, basis.device))


@quiet_trace
def test_jit_trace_is_good_for_other_sizes(by_products, no_cache):
    """ONNX's older exporter goes this way: a basis in the trace would fix the size."""
    traced = torch.jit.trace(by_products, images(64, 64), check_trace=False)
    assert cached() == 0  # sizes were tensors, good for once
    with torch.no_grad():
        for size in [(64, 64), (45, 90)]:
            x = images(*size, batch=2)
            assert_close(traced(x), by_products(x))


def test_vmap_has_the_gradients_of_each_image(shared_small):
    weights = {name: value.detach() for name, value in shared_small.named_parameters()}
    batch = images(40, 48, batch=3)

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(shared_small, weights, (x[None],)).square().sum()

    gradient = torch.func.grad(loss)
    together = torch.func.vmap(gradient, (None, 0))(weights, batch)
    for index in range(3):
        for name, alone in gradient(weights, batch[index]).items():
            error = (together[name][index] - alone).abs().max()
            assert error <= 1e-3 * alone.abs().max() + 1e-6
