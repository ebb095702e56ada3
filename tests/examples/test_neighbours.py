"""The neighbours' mixers against their definitions, written out a second time."""

import math

import pytest
import torch
import torch.nn.functional as F
from neighbours import AFNO, DynamicFilter, FastFourierConv, GlobalFilter, Pooling, WaveletConv
from neighbours.fourier import FourierUnit
from neighbours.wavelet import haar, inverse_haar
from torch import Tensor, nn

# Float64 rounding of sums of some hundred terms of size one.
EXACT = 1e-10

SIZES = [(6, 8), (5, 7), (1, 1), (4, 3)]


def maps(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def make(mixer: nn.Module) -> nn.Module:
    """The mixer in float64 and evaluation mode, with parameters of size one."""
    torch.manual_seed(0)
    for value in mixer.double().parameters():
        nn.init.normal_(value)
    return mixer.eval()


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=EXACT)


def dft(size: int) -> Tensor:
    """The orthonormal DFT as a matrix."""
    turns = torch.outer(torch.arange(size), torch.arange(size)).double() / size
    return torch.exp(-2j * math.pi * turns) / math.sqrt(size)


# ---- pooling


def test_pooling_is_the_mean_of_the_neighbours_less_the_token():
    x = maps(1, 1, 4, 5)[0, 0]
    ours = Pooling()(x[None, None])[0, 0]
    for i in range(4):
        for j in range(5):
            near = x[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2]
            assert ours[i, j].item() == pytest.approx(near.mean().item() - x[i, j].item())


@pytest.mark.parametrize("size", SIZES)
def test_pooling_of_a_constant_map_is_zero(size):
    assert_close(
        Pooling()(torch.full((2, 3, *size), 5.0).double()), torch.zeros(2, 3, *size).double()
    )


# ---- wavelets


def test_haar_is_orthonormal():
    x = maps(2, 3, 6, 8)
    bands = haar(x)
    assert bands.shape == (2, 12, 3, 4)
    assert_close(inverse_haar(bands), x)
    assert_close(bands.square().sum(), x.square().sum())


def test_haar_bands_of_a_patch():
    patch = torch.tensor([[1.0, 2.0], [4.0, 8.0]])
    assert haar(patch[None, None]).flatten().tolist() == [7.5, -2.5, -4.5, 1.5]  # half of each sum


@pytest.mark.parametrize("size", SIZES)
def test_wavelet_convolution_of_one_level_is_the_direct_form(size):
    """Strided convolutions with the four Haar kernels, and their transposes back."""
    mixer, x = make(WaveletConv(3, kernel_size=3, levels=1)), maps(2, 3, *size)
    low, high = torch.tensor([1.0, 1.0]).double(), torch.tensor([1.0, -1.0]).double()
    pairs = [(low, low), (low, high), (high, low), (high, high)]
    kernels = torch.stack([torch.outer(a, b) / 2 for a, b in pairs])[:, None].repeat(3, 1, 1, 1)
    padded = F.pad(x, (0, size[1] % 2, 0, size[0] % 2))
    bands = F.conv2d(padded, kernels, stride=2, groups=3)
    bands = F.conv2d(bands, mixer.convs[0].weight, padding=1, groups=12)
    bands = bands * mixer.scales[0].scale[:, None, None]
    back = F.conv_transpose2d(bands, kernels, stride=2, groups=3)[..., : size[0], : size[1]]
    base = F.conv2d(x, mixer.base.weight, mixer.base.bias, padding=1, groups=3)
    assert_close(mixer(x), base * mixer.base_scale.scale[:, None, None] + back)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_wavelet_convolution_by_the_identity_is_twice_the_identity(size, levels):
    """Each level but the last returns its low band doubled: the part below it is the same again."""
    mixer = make(WaveletConv(2, levels=levels))
    with torch.no_grad():
        for conv in (mixer.base, *mixer.convs):
            conv.weight.zero_()[..., 2, 2] = 1
        mixer.base.bias.zero_()
        mixer.base_scale.scale.zero_()
        for i, scale in enumerate(mixer.scales):
            scale.scale.fill_(1)
            if i + 1 < levels:
                scale.scale[::4] = 0  # the low band comes from the next level alone
    x = maps(1, 2, *size)
    assert_close(mixer(x), x)


# ---- filters


@pytest.mark.parametrize("size", SIZES)
def test_global_filter_is_a_circular_convolution(size):
    mixer, x = make(GlobalFilter(2, size)), maps(2, 2, *size)
    kernel = torch.fft.irfft2(torch.complex(*mixer.kernel), s=size)  # C H W
    expected = torch.zeros_like(x)
    for i in range(size[0]):
        for j in range(size[1]):
            expected += kernel[:, i, j, None, None] * x.roll((i, j), dims=(-2, -1))
    assert_close(mixer(x), expected)


def test_filters_fit_other_sizes():
    """A filter that passes everything passes everything at any size."""
    mixer = GlobalFilter(2, (7, 6)).double()
    with torch.no_grad():
        mixer.kernel[0], mixer.kernel[1] = 1, 0
    for size in SIZES:
        x = maps(1, 2, *size)
        assert_close(mixer(x), x)
        assert make(DynamicFilter(4, (7, 6)))(maps(1, 4, *size)).shape == (1, 4, *size)


@pytest.mark.parametrize("size", SIZES)
def test_dynamic_filter_mixes_the_filters_of_each_image(size):
    mixer, x = make(DynamicFilter(16, size, filters=3)), maps(2, 16, *size)
    weights = mixer.weights(x)
    assert weights.shape == (2, 3, 32)
    assert_close(weights.sum(1), torch.ones(2, 32).double())
    assert (weights[0] - weights[1]).abs().max() > 1e-3  # or nothing would be dynamic
    hidden = mixer.act(mixer.fc1(x))
    for b in range(2):
        by_filter = []
        for n in range(3):
            one = make(GlobalFilter(1, size))
            one.kernel.data = mixer.kernels[:, n : n + 1].detach()
            by_filter.append(one(hidden[b : b + 1]) * weights[b, n, :, None, None])
        assert_close(mixer(x)[b : b + 1], mixer.fc2(sum(by_filter)))


# ---- AFNO


@pytest.mark.parametrize("size", SIZES)
def test_afno_of_identities_adds_the_map_to_itself(size):
    mixer = make(AFNO(8, blocks=4, threshold=0))
    mixer.act = nn.Identity()
    with torch.no_grad():
        for layer in (mixer.layer1, mixer.layer2):
            layer.real.weight.copy_(torch.eye(2).repeat(4, 1)[..., None, None])
            layer.imaginary.weight.zero_()
            layer.bias.zero_()
    x = maps(2, 8, *size)
    assert_close(mixer(x) - x, x)


def test_afno_is_its_equation():
    """With complex block matrices, frequency by frequency."""
    mixer, x = make(AFNO(4, blocks=2, threshold=0.3)), maps(1, 4, 3, 5)

    def parts(z: Tensor, apply: nn.Module) -> Tensor:
        return torch.complex(apply(z.real), apply(z.imag))

    def layer(blocks: nn.Module, z: Tensor) -> Tensor:
        weight = torch.complex(blocks.real.weight, blocks.imaginary.weight)[..., 0, 0]
        matrix = torch.block_diag(*weight.split(2))  # C C
        bias = torch.complex(*blocks.bias)[:, None, None]
        return torch.einsum("oi,bihf->bohf", matrix, z) + bias

    z = torch.fft.rfft2(x, norm="ortho")
    z = layer(mixer.layer2, parts(layer(mixer.layer1, z), nn.ReLU()))
    z = parts(z, nn.Softshrink(0.3))
    assert_close(mixer(x), x + torch.fft.irfft2(z, s=(3, 5), norm="ortho"))


# ---- fast Fourier convolution


@pytest.mark.parametrize("size", SIZES)
def test_fourier_unit_by_the_matrix_of_the_dft(size):
    unit, x = make(FourierUnit(2)), maps(2, 2, *size)
    rows, columns = dft(size[0]), dft(size[1])
    half = size[1] // 2 + 1
    spectrum = (rows @ x.to(torch.complex128) @ columns)[..., :half]
    mixed = unit.conv(torch.cat([spectrum.real, spectrum.imag], 1))
    z = torch.complex(mixed[:, :2], mixed[:, 2:])
    # The inverse over the rows, then a sum of cosines and sines over half the columns.
    lines = rows.conj() @ z
    count = torch.tensor([1 if 2 * v % size[1] == 0 else 2 for v in range(half)])
    expected = (lines * count @ columns.conj()[:half]).real
    assert_close(unit(x), expected)


def test_fast_fourier_convolution_exchanges_both_halves():
    mixer, x = make(FastFourierConv(8)), maps(1, 8, 5, 6)
    near, far = x[:, :4], x[:, 4:]
    path = mixer.global_global
    hidden = path.reduce(far)
    assert hidden.shape[1] == 2
    local = mixer.local_local(near) + mixer.global_local(far)
    spectral = path.expand(hidden + path.unit(hidden)) + mixer.local_global(near)
    assert_close(mixer(x), torch.cat([local, spectral], 1))


# ---- all


MAKERS = {
    "pooling": Pooling,
    "global_filter": lambda: GlobalFilter(8, (6, 8)),
    "dynamic_filter": lambda: DynamicFilter(8, (6, 8)),
    "afno": lambda: AFNO(8),
    "wavelet": lambda: WaveletConv(8),
    "fast_fourier": lambda: FastFourierConv(8),
}


@pytest.mark.parametrize("name", MAKERS)
def test_batches_sizes_and_gradients(name):
    mixer = make(MAKERS[name]())
    x = maps(3, 8, 6, 8)
    assert_close(mixer(x), torch.cat([mixer(x[i : i + 1]) for i in range(3)]))
    for size in SIZES:
        assert mixer(maps(1, 8, *size)).shape == (1, 8, *size)
    mixer(x.requires_grad_()).square().sum().backward()
    assert all(value.grad.any() for value in (x, *mixer.parameters()))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Pooling(2), "kernel_size is 2, must be odd"),
        (lambda: WaveletConv(4, kernel_size=4), "kernel_size is 4, must be odd"),
        (lambda: WaveletConv(4, levels=0), "levels is 0, must be at least 1"),
        (lambda: AFNO(6), "dim is 6, must be divisible by blocks, 4"),
        (lambda: FastFourierConv(6), "dim is 6, must be divisible by 4"),
    ],
)
def test_errors(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
