"""The kernels compile for a GPU, which takes none; what they compute the other files test."""

from importlib.util import find_spec
from typing import Any

import pytest

if find_spec("triton") is None:
    pytest.skip("torch for the CPU alone", allow_module_level=True)

from triton import compile as compile_kernel
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel

from spanets import kernels
from spanets.kernels import (
    availability,
    gelu,
    mixing,
    mlp,
    modulation,
    moments,
    projection,
    separable,
    tap_gradients,
)

pytestmark = pytest.mark.skipif(availability.triton is None, reason="too old a Triton")

STRIP = {"K": 7, "BLOCK_H": 28, "RUN": 2, "ROWS": 2, "BLOCK_X": 4, "BLOCK_C": 64}


def name_of(kernel: Any) -> str:
    return name_of(kernel.fn) if hasattr(kernel, "fn") else kernel.__name__


# Kernel, its pointers to maps and to float32 numbers, its constants.
KERNELS: list[tuple[Any, str, str, dict[str, Any]]] = [
    *(
        (
            separable._separable_kernel,
            "maps out bias",
            "row row_bias column column_bias scale shift sums",
            {**STRIP, "FLIP": not normed, "HAS_BIAS": normed, "NORMED": normed},
        )
        for normed in (True, False)
    ),
    (tap_gradients._column_kernel, "maps grad", "row row_bias sums", STRIP),
    (tap_gradients._row_kernel, "maps grad", "column sums", STRIP),
    (
        modulation._modulation_kernel,
        "maps high basis low out",
        "",
        {"BLOCK_P": 32, "BLOCK_C": 64, "BLOCK_K": 16},
    ),
    (
        modulation._gradients_kernel,
        "maps high basis low grad of_maps of_high out",
        "",
        {"BLOCK_P": 32, "BLOCK_C": 64, "BLOCK_K": 16},
    ),
    (
        projection._projection_kernel,
        "maps basis gain out",
        "",
        {"HAS_GAIN": True, "BLOCK_P": 128, "BLOCK_C": 64, "BLOCK_K": 16},
    ),
    (moments._measure_kernel, "maps", "moments", {"BLOCK_P": 32, "BLOCK_C": 64}),
    *(
        (
            moments._add_kernel,
            "maps factor branch out",
            "moments",
            {"HAS_FACTOR": factor, "BLOCK_P": 32, "BLOCK_C": 64},
        )
        for factor in (True, False)
    ),
    (
        moments._normalizer_kernel,
        "weight",
        "moments scale shift sums",
        {"BLOCK_T": 64, "BLOCK_D": 16, "BLOCK_C": 64},
    ),
    (gelu._forward_kernel, "maps out", "", {"EXACT": False, "BLOCK": 1024}),
    (gelu._backward_kernel, "maps grad of_maps out", "", {"EXACT": True, "BLOCK": 1024}),
    (gelu._normed_kernel, "maps bias out", "scale shift sums", {"BLOCK_P": 8, "BLOCK_D": 256}),
    (
        mixing._mixing_kernel,
        "maps shortcut basis low high_weight high_bias out_weight out_bias out",
        "moments",
        {"BLOCK_P": 64, "BLOCK_C": 128, "BLOCK_K": 16},
    ),
    (
        mlp._mlp_kernel,
        "maps weight1 bias1 weight2 bias2 out",
        "scale shift",
        {"HIDDEN": 256, "BLOCK_P": 64, "BLOCK_C": 64, "BLOCK_D": 32},
    ),
]


AMPERE = GPUTarget("cuda", 80, 32)


def compiled(
    kernel: Any,
    maps: str,
    numbers: str,
    constants: dict[str, Any],
    target: GPUTarget = AMPERE,
    dtype: str = "bf16",
) -> CompiledKernel:
    function = kernel.fn if hasattr(kernel, "configs") else kernel
    types = dict.fromkeys(function.arg_names, "i32")
    types |= dict.fromkeys(maps.split(), f"*{dtype}") | dict.fromkeys(numbers.split(), "*fp32")
    types |= {name: "fp32" for name in ("eps", "headroom") if name in types}
    assert types.keys() == set(function.arg_names), "a pointer is told that the kernel lacks"
    types |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(function, signature=types, constexprs=constants)
    return compile_kernel(source, target=target)


@pytest.mark.parametrize(
    ("kernel", "maps", "numbers", "constants"),
    # That of the mixer takes 13 s.
    [pytest.param(*k, marks=[pytest.mark.slow] * (k[0] is mixing._mixing_kernel)) for k in KERNELS],
    ids=[name_of(kernel) for kernel, *_ in KERNELS],
)
def test_a_kernel_compiles(kernel: Any, maps: str, numbers: str, constants: dict[str, Any]) -> None:
    binary = compiled(kernel, maps, numbers, constants)
    assert binary.asm["cubin"]
    assert binary.metadata.shared <= SMALL_SHARED


# Shared memory of a block on the smaller GPUs of each generation (compute capability 8.6 and 8.9).
SMALL_SHARED = 99 * 1024

PRODUCTS = [what for what in KERNELS if "BLOCK_K" in what[3]]


# The others are for half precision alone.
EXACT = [what for what in PRODUCTS if what[0] is not mixing._mixing_kernel]


@pytest.mark.parametrize("what", EXACT, ids=[name_of(kernel) for kernel, *_ in EXACT])
def test_float32_and_many_modes_fit_small_gpus(what: tuple[Any, str, str, dict[str, Any]]) -> None:
    kernel, maps, numbers, constants = what
    block = {**constants, "BLOCK_K": kernels.MAX_MODES}
    if kernel is projection._projection_kernel:
        block["BLOCK_P"] //= 2
    binary = compiled(kernel, maps, numbers, block, GPUTarget("cuda", 86, 32), "fp32")
    assert binary.metadata.shared <= SMALL_SHARED


@pytest.mark.parametrize(
    "target", [GPUTarget("hip", "gfx90a", 64), GPUTarget("hip", "gfx1100", 32)]
)
@pytest.mark.parametrize(
    "what",
    [
        # Some 15 s each.
        pytest.param(what, marks=[pytest.mark.slow] * (what[0] is mixing._mixing_kernel))
        for what in PRODUCTS
    ],
    ids=[name_of(kernel) for kernel, *_ in PRODUCTS],
)
def test_products_compile_for_amd(
    what: tuple[Any, str, str, dict[str, Any]], target: GPUTarget
) -> None:
    assert compiled(*what, target).asm["hsaco"]
