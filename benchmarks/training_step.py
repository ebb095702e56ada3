"""Times a training step of a small network on a CPU, and its optimizer's part.

    python benchmarks/training_step.py [--model spanet_nano] [--size 128] [--batch 16] [--threads 2]

Optimizers: ours (`spanets.training.optim`) and timm's own by the same names, with equal updates up
to rounding: Muon with matrices of one shape together, AdamW by torch's fused kernel.
"""

import argparse
from collections.abc import Callable

import timm
import torch
import torch.nn.functional as F
from common import write
from timm.optim import create_optimizer_v2

import spanets  # noqa: F401 (registers the models)
from spanets.bench.timing import interleave, summarise
from spanets.recipe import Optim
from spanets.training.groups import group_parameters
from spanets.training.optim import make_optimizer

NAMES = ("muon", "adamw")


def make_step(
    name: str, ours: bool, arguments: argparse.Namespace
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Returns a whole step, and the optimizer's update with the gradients that it left."""
    torch.manual_seed(0)
    model = timm.create_model(arguments.model, num_classes=10).train()
    groups = group_parameters(model, 0.05, lambda _: 1.0)
    if ours:
        optimizer = make_optimizer(groups, Optim(name=name, lr=1e-4))
    else:
        optimizer = create_optimizer_v2(groups, name, lr=1e-4, weight_decay=0.05)
    images = torch.randn(arguments.batch, 3, arguments.size, arguments.size)
    labels = torch.arange(arguments.batch) % 10

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step, lambda: optimizer.step() and None


def main() -> None:
    """Measures and writes results/training_step.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="spanet_nano")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    steps, updates = {}, {}
    for name in NAMES:
        for ours in (True, False):
            key = f"{name}_{'ours' if ours else 'timm'}"
            steps[key], updates[key] = make_step(name, ours, arguments)
    content = {"model": arguments.model, "size": arguments.size, "batch": arguments.batch}
    for kind, given in (("step", steps), ("update", updates)):
        times = interleave(given, arguments.rounds, warmup=2)
        content[kind] = summarise(times, f"{NAMES[0]}_ours")
    write("training_step", content)


if __name__ == "__main__":
    main()
