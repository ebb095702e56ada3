"""Measures convolution and self-attention on the modes of the graph of tokens.

The definitions are this project's, based on Balcilar et al., ICLR 2021, Eq. 7. A kernel of size k
connects the tokens of an H × W grid within a window. The modes are the eigenvectors of the graph's
normalized Laplacian, from smooth to rough. A token mixer is a matrix, measured on these modes.

Shape legend: `N = H·W` tokens, row by row; `M` modes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def window_adjacency(height: int, width: int, kernel_size: int | None) -> Array:
    """Returns which other tokens a window connects, without wrap-around: (N, N), 0 or 1.

    Args:
        height: Grid height, in tokens.
        width: Grid width, in tokens.
        kernel_size: Window side k, odd: connects tokens up to (k - 1) / 2 rows and columns away.
            None connects all tokens.

    Raises:
        ValueError: the kernel size is even or too small.
    """
    rows, columns = np.divmod(np.arange(height * width), width)
    distance = np.maximum(
        np.abs(rows[:, None] - rows[None, :]), np.abs(columns[:, None] - columns[None, :])
    )
    reach = max(height, width) if kernel_size is None else _reach(kernel_size)
    return ((distance > 0) & (distance <= reach)).astype(np.float64)


def _reach(kernel_size: int) -> int:
    if kernel_size < 3 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size is {kernel_size}, must be odd and at least 3")
    return (kernel_size - 1) // 2


def grid_adjacency(height: int, width: int) -> Array:
    """Returns which tokens are horizontal or vertical neighbours: (N, N), 0 or 1."""
    rows, columns = np.divmod(np.arange(height * width), width)
    steps = np.abs(rows[:, None] - rows[None, :]) + np.abs(columns[:, None] - columns[None, :])
    return (steps == 1).astype(np.float64)


@dataclass(frozen=True)
class Modes:
    """Eigenvalues and eigenvectors of a graph's Laplacian.

    Attributes:
        values: μ, ascending from 0, smooth to rough: (M,).
        vectors: U, one mode per column: (N, M).
    """

    values: Array
    vectors: Array


def normalized_modes(adjacency: Array) -> Modes:
    """Returns the modes of `L = I - D^{-1/2} A D^{-1/2}`."""
    scale = adjacency.sum(1) ** -0.5
    laplacian = np.eye(len(adjacency)) - scale[:, None] * adjacency * scale[None, :]
    return Modes(*np.linalg.eigh(laplacian))


def combinatorial_modes(adjacency: Array) -> Modes:
    """Returns the modes of `L = D - A`; the first is exactly constant."""
    values, vectors = np.linalg.eigh(np.diag(adjacency.sum(1)) - adjacency)
    vectors[:, 0] = len(adjacency) ** -0.5
    return Modes(values, vectors)


def uniform_matrix(adjacency: Array) -> Array:
    """Returns equal weights on a window, including its centre: `D^{-1/2} (A + I) D^{-1/2}`."""
    connected = adjacency + np.eye(len(adjacency))
    scale = connected.sum(1) ** -0.5
    return scale[:, None] * connected * scale[None, :]


def convolution_matrix(kernel: Array, height: int, width: int) -> Array:
    """Returns the matrix (N, N) of a convolution with zero padding, as `torch.conv2d` does it.

    Args:
        kernel: Kernel (k, k), k odd.
        height: Grid height, in tokens.
        width: Grid width, in tokens.

    Raises:
        ValueError: the kernel is not square or has even sides.
    """
    size = kernel.shape[0]
    if kernel.shape != (size, size) or size % 2 == 0:
        raise ValueError(f"the kernel has shape {kernel.shape}, must be square and odd")
    rows, columns = np.divmod(np.arange(height * width), width)
    down = rows[None, :] - rows[:, None] + size // 2
    right = columns[None, :] - columns[:, None] + size // 2
    inside = (down >= 0) & (down < size) & (right >= 0) & (right < size)
    matrix = np.zeros((height * width, height * width))
    matrix[inside] = kernel[down[inside], right[inside]]
    return matrix


def attention_matrix(query: Array, key: Array, adjacency: Array | None = None) -> Array:
    """Returns self-attention's matrix (N, N), whose rows sum to 1.

    `softmax(Q Kᵀ / √d)`, masked to a window including its centre.

    Args:
        query: Queries (N, d).
        key: Keys (N, d).
        adjacency: Window, see `window_adjacency`; None uses all tokens.
    """
    scores = query @ key.T / np.sqrt(query.shape[1])
    if adjacency is not None:
        scores = np.where(adjacency + np.eye(len(adjacency)) > 0, scores, -np.inf)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


@dataclass(frozen=True)
class GraphSpectrum:
    """Response of an operator to the modes of a graph.

    Attributes:
        values: μ of the modes: (M,).
        profile: φ, the diagonal of `Uᵀ C U`: (M,).
        gain: γ, the norm of `C u_j`: (M,).
    """

    values: Array
    profile: Array
    gain: Array

    @property
    def high_pass_ratio(self) -> float:
        """Mean `|φ|` over the top third of μ, divided by the mean over the bottom third."""
        low, _, high = self.thirds()
        return high / low

    @property
    def gain_ratio(self) -> float:
        """Mean γ over the top third of μ, divided by γ of the smoothest mode."""
        top = self.gain[-(len(self.gain) // 3) :]
        return float(top.mean() / self.gain[0])

    def thirds(self) -> tuple[float, float, float]:
        """Returns the mean `|φ|` over the bottom, middle and top third of μ."""
        third = len(self.profile) // 3
        size = np.abs(self.profile)
        parts = (size[:third], size[third:-third], size[-third:])
        low, middle, high = (float(part.mean()) for part in parts)
        return low, middle, high


def graph_spectrum(operator: Array, modes: Modes) -> GraphSpectrum:
    """Measures an operator (N, N) on the modes of a graph."""
    moved = operator @ modes.vectors
    profile = np.einsum("nm,nm->m", modes.vectors, moved)
    return GraphSpectrum(modes.values, profile, np.linalg.norm(moved, axis=0))
