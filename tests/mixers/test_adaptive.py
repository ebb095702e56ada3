"""The spectral-adaptive mixer against a slow reference, written from the mathematics."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spanets.mixers import SpectralAdaptiveMixer, SpectralFilter

EXACT = 1e-10

SIZES = [(8, 8), (5, 7), (12, 3), (1, 1), (1, 6)]


def maps(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def make(**arguments: object) -> SpectralAdaptiveMixer:
    """A mixer in float64, its filters far from one half and its norm from the identity."""
    torch.manual_seed(0)
    mixer = SpectralAdaptiveMixer(12, dtype=torch.float64, **{"map_size": (8, 8)} | arguments)
    with torch.no_grad():
        for name, value in mixer.named_parameters():
            if name.endswith(("logits", "proj.1.weight", "proj.1.bias", "alpha")):
                value.normal_()
    return mixer.eval()


def reference(mixer: SpectralAdaptiveMixer, x: Tensor, interleaved: bool, scaled: bool) -> Tensor:
    """Mathematics 2.1 in words of one syllable, head by head, from the mixer's weights alone."""
    weights = mixer.state_dict()
    channels = x.shape[1]
    height, width = x.shape[2:]
    query = F.gelu(torch.einsum("dc,bchw->bdhw", weights["query.weight"][..., 0, 0], x))
    value = torch.einsum("dc,bchw->bdhw", weights["value.weight"][..., 0, 0], x)
    quarter = channels // 4
    heads = []
    for i in range(4):
        part = slice(i * quarter, (i + 1) * quarter)
        kernel, bias = weights[f"local_convs.{i}.weight"], weights[f"local_convs.{i}.bias"]
        assert kernel.shape[-1] == 3 + 2 * i
        local = F.conv2d(value[:, part], kernel, bias, padding=1 + i, groups=quarter)
        channels_of_head = slice(i, None, 4) if interleaved else part  # of the merged maps
        logits = weights["filter.logits"][channels_of_head]
        if logits.shape[1:] != (height, width // 2 + 1):
            size = (height, width // 2 + 1)
            logits = F.interpolate(logits[None], size, mode="bicubic", align_corners=True)[0]
        if scaled:
            logits = weights["filter.alpha"] * logits
        spectrum = torch.fft.rfft2(local, norm="ortho") * torch.sigmoid(logits)
        heads.append(torch.fft.irfft2(spectrum, s=(height, width), norm="ortho"))
    context = torch.empty_like(x)
    for head in range(4):
        for g in range(quarter):
            to = g * 4 + head if interleaved else head * quarter + g
            context[:, to] = heads[head][:, g]
    context = F.conv2d(context, weights["proj.0.weight"], groups=quarter)
    context = F.group_norm(context, 1, weights["proj.1.weight"], weights["proj.1.bias"], 1e-5)
    context = F.conv2d(F.gelu(context), weights["proj.3.weight"])
    return F.conv2d(query * context, weights["proj_out.weight"])


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("merge", ["interleaved", "concatenated"])
@pytest.mark.parametrize("method", ["auto", "matmul", "fft"])
def test_mathematics(method, merge, scaled):
    mixer = make(merge=merge, scaled_gate=scaled, spectral_method=method)
    with torch.no_grad():
        for size in SIZES:
            x = maps(2, 12, *size)
            expected = reference(mixer, x, merge == "interleaved", scaled)
            assert (mixer(x) - expected).abs().max() < EXACT


def test_orders_are_different_functions():
    x = maps(1, 12, 8, 8)
    one, other = make(), make(merge="concatenated")
    assert (one(x) - other(x)).abs().max() > 0.01


def test_another_order_is_refused():
    """By shape alone it would fit, with any loader and into any number format."""
    one, other = make(), make(merge="concatenated")
    state = one.state_dict()
    message = (
        "interleaved: the weights were trained with merge='interleaved', the model has "
        "'concatenated'; create it with merge='interleaved'"
    )
    for target in (other, copy.deepcopy(other).half(), copy.deepcopy(other).to("meta")):
        with pytest.raises(RuntimeError, match=message):
            target.load_state_dict(state, assign=True)
        with pytest.raises(RuntimeError, match=message):
            target.load_state_dict(state, strict=False)
    make().load_state_dict(state)
    make().to("meta").load_state_dict(state, assign=True)


def test_an_order_must_be_known():
    state = make().state_dict()
    del state["merge.interleaved"]
    with pytest.raises(RuntimeError, match=r"Missing key.*interleaved"):
        make().load_state_dict(state)


def test_order_after_the_meta_device():
    for merge in ("interleaved", "concatenated"):
        mixer = SpectralAdaptiveMixer(8, merge=merge, device="meta").to_empty(device="cpu")
        mixer.merge.reset_parameters()
        assert bool(mixer.merge.interleaved) == (merge == "interleaved")


def test_filters_start_near_a_half():
    torch.manual_seed(0)
    start = SpectralFilter(64, (14, 14), scaled_gate=True)
    assert start.logits.shape == (64, 14, 8)
    assert abs(start.logits.std().item() - 0.02) < 0.001
    assert start.alpha.item() == 1


def test_filters_pass_gradients_at_other_sizes():
    mixer = make(scaled_gate=True).train()
    mixer(maps(1, 12, 6, 11)).square().sum().backward()
    for name, value in mixer.named_parameters():
        assert value.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 10}, "10 channels do not split into 4 heads"),
        ({"merge": "stacked"}, "merge is 'stacked', allowed: interleaved, concatenated"),
        ({"spectral_method": "dct"}, "spectral_method is 'dct', allowed: auto, matmul, fft"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpectralAdaptiveMixer(**{"dim": 8} | arguments)
