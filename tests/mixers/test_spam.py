"""SPAM against a slow reference, written from the paper's equations gate by gate."""

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spanets.mixers import BALANCES, SPAM, SpectralContext, chunk_sizes
from spanets.spectral import RING, low_frequency_mask

# Float64 rounding through five layers of up to 64 channels and 7 taps; outputs are of size one.
EXACT = 1e-10


def maps(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def make(dim: int, **arguments: object) -> SPAM:
    """A mixer in float64 with its initial weights, the biases made larger."""
    torch.manual_seed(0)
    mixer = SPAM(dim, **arguments, dtype=torch.float64)
    with torch.no_grad():
        for name, value in mixer.named_parameters():
            if name.endswith("bias"):
                value.uniform_(-1, 1)
    return mixer


def pool(x: Tensor, radius: float, low: float, ring: float | None) -> Tensor:
    mask = low_frequency_mask(*x.shape[-2:], radius, low, ring, torch.float64)
    spectrum = torch.fft.fftshift(torch.fft.fft2(x), dim=(-2, -1))
    return torch.fft.ifft2(torch.fft.ifftshift(spectrum * mask, dim=(-2, -1))).real


def reference(
    mixer: SPAM,
    x: Tensor,
    radius: float,
    balances: Sequence[float] = BALANCES,
    ring: float | None = RING,
    hadamard: bool = False,
    spectral_filter: bool = True,
) -> Tensor:
    """Mathematics 1.3 in words of one syllable, from the mixer's weights alone."""
    channels = x.shape[1]
    k = mixer.conv_row.weight.shape[-1]
    x = F.conv2d(x, mixer.proj_in.weight, mixer.proj_in.bias)
    x = F.pad(x, (k // 2, k // 2, 0, 0))
    x = F.conv2d(x, mixer.conv_row.weight, mixer.conv_row.bias, groups=channels)
    x = F.pad(x, (0, 0, k // 2, k // 2))
    x = F.conv2d(x, mixer.conv_column.weight, mixer.conv_column.bias, groups=channels)
    gates = []
    start = 0
    for i, part in enumerate(torch.chunk(x, len(balances), dim=1)):
        stop = start + part.shape[1]
        if spectral_filter:
            part = pool(part, radius, balances[i], ring)
        weight = mixer.context.proj.weight[:, start:stop, 0, 0]
        gate = torch.einsum("dc,bchw->bdhw", weight, part)
        gates.append(gate + mixer.context.bias[i][:, None, None])
        start = stop
    assert stop == channels
    context = math.prod(gates) if hadamard else sum(gates)
    return F.conv2d(x * context, mixer.proj_out.weight, mixer.proj_out.bias)


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = EXACT) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


# ---- the reference


@pytest.mark.parametrize("method", ["auto", "basis", "fft"])
@pytest.mark.parametrize("radius", [1, 2, 3.5])
@pytest.mark.parametrize("dim", [64, 48, 40, 7, 3])
def test_spam_is_the_reference(dim, radius, method):
    mixer = make(dim, radius=radius, method=method)
    x = maps(2, dim, 9, 12)
    assert_close(mixer(x), reference(mixer, x, radius))


@pytest.mark.parametrize(
    "options",
    [
        {"ring": None},
        {"ring": 0.9},
        {"balances": (0.6,)},
        {"balances": (0.6, 0.95)},
        {"balances": (0.5, 0.6, 0.7, 0.8, 0.9)},
        {"balances": (0.0, 1.0)},
        {"spectral_filter": False},
        {"aggregation": "hadamard"},
        {"aggregation": "hadamard", "ring": None, "balances": (0.6, 0.95)},
        {"aggregation": "hadamard", "spectral_filter": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["basis", "fft"])
def test_options_are_the_reference(options, method):
    mixer = make(20, radius=2, method=method, **options)
    x = maps(2, 20, 8, 11)
    known = dict(options)
    hadamard = known.pop("aggregation", "sum") == "hadamard"
    assert_close(mixer(x), reference(mixer, x, 2, hadamard=hadamard, **known))


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 7), (9, 4)])
def test_kernels_and_sizes_are_the_reference(kernel_size, size):
    mixer = make(6, kernel_size=kernel_size)
    assert mixer.conv_row.weight.shape[2:] == (1, kernel_size)
    assert mixer.conv_column.weight.shape[2:] == (kernel_size, 1)
    x = maps(2, 6, *size)
    assert_close(mixer(x), reference(mixer, x, 2))


def test_options_are_different_functions():
    """Or the tests above would prove little."""
    x = maps(1, 20, 8, 11)
    forms = [
        {},
        {"radius": 1},
        {"ring": None},
        {"spectral_filter": False},
        {"aggregation": "hadamard"},
    ]
    outputs = [make(20, **form)(x) for form in forms]
    for one, other in itertools.combinations(outputs, 2):
        assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("method", ["basis", "fft"])
def test_gradients_are_those_of_the_reference(method):
    mixer = make(10, method=method)
    inputs = [maps(2, 10, 6, 5).requires_grad_(), *mixer.parameters()]
    direction = maps(2, 10, 6, 5, seed=1)
    ours = torch.autograd.grad((mixer(inputs[0]) * direction).sum(), inputs)
    theirs = torch.autograd.grad((reference(mixer, inputs[0], 2) * direction).sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b)


# ---- initial weights and gates


@pytest.mark.parametrize("dim", [*range(3, 9), 64, 128, 320, 512, 768])
def test_gates_are_the_chunks_of_torch(dim):
    try:
        sizes = chunk_sizes(dim, 3)
    except ValueError as error:
        assert str(error) == f"{dim} channels do not split into 3 gates"
        sizes = None
    chunks = [len(part) for part in torch.arange(dim).chunk(3)]
    assert sizes == (chunks if len(chunks) == 3 else None)


def test_gates_of_64_channels():
    assert chunk_sizes(64, 3) == [22, 22, 20]
    assert chunk_sizes(48, 3) == [16, 16, 16]
    with pytest.raises(ValueError, match="4 channels do not split into 3 gates"):
        SPAM(4)


def test_initial_weights_are_those_of_a_convolution_a_gate():
    torch.manual_seed(0)
    context = SpectralContext(640)
    sizes = chunk_sizes(640, 3)
    weights = context.proj.weight.split(sizes, 1)
    for size, weight, bias in zip(sizes, weights, context.bias, strict=True):
        like = nn.Conv2d(size, 640, 1)
        # Uniform over ± the same bound: 640 samples come within 2 % of it.
        for ours, theirs in [(weight, like.weight), (bias, like.bias)]:
            assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.02)
            assert ours.mean().abs() < 0.1 * ours.abs().max()


# ---- balance and ring learnt


LEARNT = [
    {"learn_balance": "gate"},
    {"learn_balance": "channel"},
    {"learn_balance": "gate", "learn_ring": True},
    {"learn_balance": "channel", "learn_ring": True},
]


@pytest.mark.parametrize("learnt", LEARNT, ids=str)
@pytest.mark.parametrize("method", ["basis", "fft"])
@pytest.mark.parametrize("aggregation", ["sum", "hadamard"])
def test_learnt_balance_starts_from_the_fixed_one(learnt, method, aggregation):
    fixed = make(11, method=method, aggregation=aggregation)
    mixer = make(11, method=method, aggregation=aggregation, **learnt)
    result = mixer.load_state_dict(fixed.state_dict(), strict=False)
    new = {"context.filter.balance_logit"}
    new |= {"context.filter.ring_logit"} if "learn_ring" in learnt else set()
    assert set(result.missing_keys) == new
    sizes = {"gate": 3, "channel": 11}
    assert all(len(mixer.get_parameter(key)) == sizes[learnt["learn_balance"]] for key in new)
    x = maps(2, 11, 7, 6)
    # The logarithm and its inverse are exact to float64 rounding.
    assert_close(mixer(x), fixed(x))


@pytest.mark.parametrize("learnt", LEARNT, ids=str)
@pytest.mark.parametrize("method", ["basis", "fft"])
def test_learnt_balance_is_the_balance(learnt, method):
    """With other logits: each gate or channel is filtered by its own λ and ρ."""
    mixer = make(5, method=method, radius=1, **learnt)
    with torch.no_grad():
        for value in mixer.context.filter.parameters():
            value.copy_(maps(len(value), seed=len(value)))
    x, pool_ = maps(2, 5, 6, 7), mixer.context.filter
    low, ring = pool_.channel_balance(x).tolist(), pool_.channel_ring(x)
    rings = ring.tolist() if isinstance(ring, Tensor) else [ring] * 5
    logit = pool_.balance_logit.sigmoid().tolist()
    expected = logit if len(logit) == 5 else [logit[i] for i in (0, 0, 1, 1, 2)]
    assert low == pytest.approx(expected)
    pooled = torch.cat([pool(x[:, i : i + 1], 1, low[i], rings[i]) for i in range(5)], 1)
    context = F.conv2d(pooled, mixer.context.proj.weight, mixer.context.bias.sum(0))
    assert_close(mixer.context(x), context)


@pytest.mark.parametrize("learnt", LEARNT, ids=str)
@pytest.mark.parametrize("method", ["basis", pytest.param("fft", marks=pytest.mark.slow)])
@pytest.mark.parametrize("aggregation", ["sum", "hadamard"])
def test_gradients_are_finite_differences(learnt, method, aggregation):
    gates = {"balances": (0.6, 0.8), "aggregation": aggregation}  # of three and two channels
    mixer = make(5, kernel_size=3, radius=1, method=method, **gates, **learnt)
    names = [name for name, _ in mixer.named_parameters()]
    assert "context.filter.balance_logit" in names

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(mixer, dict(zip(names, values, strict=True)), (x,))

    inputs = (maps(1, 5, 4, 3).requires_grad_(), *mixer.parameters())
    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("learnt", LEARNT, ids=str)
def test_every_parameter_learns(learnt):
    mixer = make(6, radius=2, **learnt)
    mixer(maps(2, 6, 8, 8)).square().sum().backward()
    assert all(
        value.grad.abs().min() > 0 for key, value in mixer.named_parameters() if "logit" in key
    )
    assert all(value.grad.any() for value in mixer.parameters())


def test_no_parameter_without_effect():
    """Without the filter there is nothing for a balance to do."""
    mixer = SPAM(6, spectral_filter=False, learn_balance="gate", learn_ring=True)
    assert not [key for key, _ in mixer.named_parameters() if "logit" in key]


# ---- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 4}, "kernel_size is 4, must be odd"),
        ({"aggregation": "mean"}, "aggregation is 'mean', allowed: sum, hadamard"),
        ({"learn_balance": "image"}, "learn_balance is 'image', allowed: None, gate, channel"),
        ({"method": "dct"}, "unknown method 'dct', allowed: auto, basis, fft"),
        ({"radius": 0}, "radius is 0, must be positive"),
        ({"balances": ()}, "0 balances for 6 channels, allowed: 1 to 6"),
        ({"balances": (0.5,) * 7}, "7 balances for 6 channels, allowed: 1 to 6"),
        ({"balances": (0.5,) * 4}, "6 channels do not split into 4 gates"),
        ({"learn_ring": True}, "learn_ring needs learn_balance and a ring value"),
        (
            {"learn_ring": True, "learn_balance": "gate", "ring": None},
            "learn_ring needs learn_balance and a ring value",
        ),
        (
            {"learn_balance": "gate", "balances": (0.5, 1.0)},
            "balance is 1.0, must lie between 0 and 1 to be learnt",
        ),
        (
            {"learn_balance": "gate", "learn_ring": True, "ring": 0.0},
            "ring is 0.0, must lie between 0 and 1 to be learnt",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        SPAM(6, **arguments)
