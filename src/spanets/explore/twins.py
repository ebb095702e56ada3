"""Networks that one request may hook and change, while others run the same weights."""

import copy
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor, nn

from spanets.mixers import SpectralContext, SpectralPool
from spanets.mixers.context import chunk_sizes
from spanets_runtime.errors import UsageError


def share_tensors(network: nn.Module) -> nn.Module:
    """Returns a copy of a network's modules that shares its parameters and buffers."""
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})


class TakesTurns(nn.Module):
    """Runs an exported file for one request at a time, as some runtimes need it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self._lock = network, Lock()

    def forward(self, images: Tensor) -> Tensor:
        """Returns the outputs."""
        with self._lock:
            outputs: Tensor = self.network(images)
        return outputs


class Twins:
    """Lends copies of a network that share its tensors, each to one borrower at a time.

    Hooks of `capture`, and balances set by `balanced`, would be seen by everyone who runs a shared
    network at the same moment.

    Args:
        network: The network.
        is_copied: Whether copies are lent. An exported file cannot be copied, watched or changed,
            so its borrowers take turns.
    """

    def __init__(self, network: nn.Module, is_copied: bool = True) -> None:
        self.network = network
        self._shared = None if is_copied else TakesTurns(network)
        self._idle: deque[nn.Module] = deque(maxlen=4)

    @contextmanager
    def borrow(self) -> Iterator[nn.Module]:
        """Lends a copy, without gradients; what was changed in it must be undone before the end."""
        if self._shared is not None:
            with torch.no_grad():
                yield self._shared
            return
        try:
            twin = self._idle.pop()
        except IndexError:
            twin = share_tensors(self.network)
        with torch.no_grad():
            yield twin
        self._idle.append(twin)  # not after an error, which may have left it changed


def stage_of(name: str) -> str:
    """Returns the stage of a module's name: "stages.1" of "stages.1.blocks.0.token_mixer"."""
    return name.split(".blocks.")[0]


def contexts_of(network: nn.Module) -> dict[str, SpectralContext]:
    """Returns the contexts of a network's SPAMs, by name."""
    found = network.named_modules()
    return {name: module for name, module in found if isinstance(module, SpectralContext)}


def last_contexts(network: nn.Module) -> dict[str, str]:
    """Returns the name of the last context of each stage, by stage."""
    return {stage_of(name): name for name in contexts_of(network)}


def balances_of(context: SpectralContext) -> list[float]:
    """Returns λ of each head; the mean over its channels where each channel has its own.

    A context without a filter has none.
    """
    pool = context.filter
    if not isinstance(pool, SpectralPool):
        return []
    per_channel = pool.channel_balance(context.proj.weight).detach().float()
    return [round(part.mean().item(), 6) for part in per_channel.chunk(len(pool.balances))]


def balanced_stages(network: nn.Module) -> dict[str, list[float]]:
    """Returns λ of each head in the last block of each stage, by stage; {} without SPAMs."""
    contexts = contexts_of(network)
    found = {stage: balances_of(contexts[name]) for stage, name in last_contexts(network).items()}
    return {stage: values for stage, values in found.items() if values}


@contextmanager
def balanced(network: nn.Module, stage: str, values: Sequence[float]) -> Iterator[None]:
    """Sets λ of each head in all blocks of a stage; restores the network's own at the end.

    Args:
        network: A borrowed network; a shared one would change for everyone.
        stage: Name of a stage, or "all".
        values: λ of each head, from 0 to 1.

    Raises:
        UsageError: the stage has no SPAM, another number of heads, or a value is out of range.
    """
    stages = balanced_stages(network)
    if stage not in (*stages, "all") or not stages:
        known = ", ".join([*stages, "all"]) if stages else "none: the network has no SPAM"
        raise UsageError(f"stage is {stage!r}, allowed: {known}")
    heads = len(next(iter(stages.values())) if stage == "all" else stages[stage])
    if len(values) != heads or not all(0 <= value <= 1 for value in values):
        shown = " ".join(f"{value:g}" for value in values)
        raise UsageError(f"balance is {shown!r}, must be {heads} numbers from 0 to 1")
    pools = [
        context.filter
        for name, context in contexts_of(network).items()
        if stage in ("all", stage_of(name)) and isinstance(context.filter, SpectralPool)
    ]
    before = [(pool, pool.balances, getattr(pool, "balance_logit", None)) for pool in pools]
    try:
        for pool in pools:
            _set_balances(pool, values)
        yield
    finally:
        for pool, balances, logit in before:
            pool.balances = balances
            if logit is not None:
                pool.balance_logit = logit


def _set_balances(pool: SpectralPool, values: Sequence[float]) -> None:
    pool.balances = tuple(values)
    if not hasattr(pool, "balance_logit"):
        return
    like = pool.balance_logit
    sizes = (
        [1] * len(values) if pool.learn_balance == "gate" else chunk_sizes(len(like), len(values))
    )
    logits = torch.tensor(values, dtype=like.dtype, device=like.device).logit()
    repeats = torch.tensor(sizes, device=like.device)
    # A new parameter: the tensors are shared with other copies.
    pool.balance_logit = nn.Parameter(logits.repeat_interleave(repeats), requires_grad=False)
