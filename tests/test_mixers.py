"""SPAM against a literal reading of Eq. 19, and its options."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spanets.mixers import BALANCES, SPAM, SpectralContext, chunk_sizes
from spanets.spectral import RING, low_frequency_mask

# float64 rounding through five linear layers on numbers of order one.
EXACT = 1e-10


def make(dim: int, **options) -> SPAM:
    torch.manual_seed(dim)
    return SPAM(dim, **options, dtype=torch.float64)


def maps(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.manual_seed(0))


def literal(mixer: SPAM, x: Tensor, radius: float, ring: float | None = RING, **options) -> Tensor:
    """Gate by gate, with complex transforms: Figure 3."""
    x = mixer.conv_column(mixer.conv_row(mixer.proj_in(x)))
    mask_size = x.shape[-2:]
    contexts = []
    start = 0
    for i, part in enumerate(x.chunk(len(BALANCES), dim=1)):
        if options.get("spectral_filter", True):
            mask = low_frequency_mask(*mask_size, radius, BALANCES[i], ring, torch.float64)
            spectrum = torch.fft.fftshift(torch.fft.fft2(part), dim=(-2, -1)) * mask
            part = torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(-2, -1))).real
        weight = mixer.context.weight[:, start : start + part.shape[1]]
        contexts.append(F.conv2d(part, weight[:, :, None, None], mixer.context.bias[i]))
        start += part.shape[1]
    stacked = torch.stack(contexts)
    hadamard = options.get("aggregation") == "hadamard"
    return mixer.proj_out(x * (stacked.prod(0) if hadamard else stacked.sum(0)))


@pytest.mark.parametrize("method", ["basis", "fft"])
@pytest.mark.parametrize("dim", [24, 40, 64])
@pytest.mark.parametrize(("radius", "size"), [(2, (14, 14)), (1, (7, 9)), (4, (16, 11)), (2, (1, 3))])
def test_spam_is_its_definition(dim, radius, size, method):
    mixer = make(dim, radius=radius, method=method)
    x = maps(2, dim, *size)
    assert (mixer(x) - literal(mixer, x, radius)).abs().max() < EXACT


@pytest.mark.parametrize(
    "options",
    [
        {"aggregation": "hadamard"},
        {"spectral_filter": False},
        {"spectral_filter": False, "aggregation": "hadamard"},
        {"ring": None},
        {"ring": 0.8},
        {"kernel_size": 3},
        {"kernel_size": 5},
    ],
    ids=str,
)
def test_options_are_their_definition(options):
    mixer = make(24, **options)
    x = maps(2, 24, 10, 13)
    assert (mixer(x) - literal(mixer, x, 2, **options)).abs().max() < EXACT


@pytest.mark.parametrize("learn", ["gate", "channel"])
@pytest.mark.parametrize("learn_ring", [False, True])
def test_learnt_balance_starts_as_the_fixed_one(learn, learn_ring):
    fixed, learnt = make(20), make(20, learn_balance=learn, learn_ring=learn_ring)
    missing = learnt.load_state_dict(fixed.state_dict(), strict=False).missing_keys
    assert missing == [f"context.{n}_logit" for n in ("balance", "ring")[: 1 + learn_ring]]
    assert len(learnt.context.balance_logit) == {"gate": 3, "channel": 20}[learn]
    x = maps(2, 20, 9, 9)
    assert (fixed(x) - learnt(x)).abs().max() < EXACT


@pytest.mark.parametrize("method", ["basis", "fft"])
@pytest.mark.parametrize("learn", ["gate", "channel"])
def test_gradients_are_finite_differences(learn, method):
    context = SpectralContext(
        5, radius=1, learn_balance=learn, learn_ring=True, method=method, dtype=torch.float64
    )
    names, parameters = zip(*context.named_parameters(), strict=True)

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(context, dict(zip(names, values, strict=True)), (x,))

    # In float64 even of the FFT form, whose island is float32 for lesser types only.
    assert torch.autograd.gradcheck(run, (maps(1, 5, 4, 5).requires_grad_(), *parameters))


def test_every_parameter_gets_a_gradient():
    for options in ({}, {"aggregation": "hadamard"}, {"learn_balance": "gate", "learn_ring": True}):
        mixer = make(24, **options)
        mixer(maps(2, 24, 8, 8)).square().sum().backward()
        for name, parameter in mixer.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_gates_start_as_convolutions_of_their_own_channels():
    torch.manual_seed(0)
    context = SpectralContext(300)
    bound = 100**-0.5  # the framework's default for 100 input channels
    assert context.weight.abs().max() <= bound
    assert context.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert context.bias.abs().max() <= bound


def test_gates_split_as_chunk_does():
    for total in (24, 40, 64, 320, 512):
        assert chunk_sizes(total, 3) == [len(part) for part in torch.arange(total).chunk(3)]
    assert chunk_sizes(64, 3) == [22, 22, 20]
    with pytest.raises(ValueError, match="4 channels do not split into 3 gates"):
        chunk_sizes(4, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggregation": "mean"}, "aggregation is 'mean', allowed: sum, hadamard"),
        ({"learn_balance": "pixel"}, "learn_balance is 'pixel', allowed: None, gate, channel"),
        ({"learn_ring": True}, "learn_ring needs learn_balance"),
        ({"kernel_size": 4}, "kernel_size is 4, must be odd"),
        ({"method": "dct"}, "unknown method 'dct'"),
        ({"balances": ()}, "0 balances"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SPAM(24, **options)
