"""Means of many values in modules of few digits."""

import torch
from torch import nn

from spanets.training.sums import ExactMean


def test_a_mean_in_a_bfloat16_module_counts_beyond_256():
    module = nn.Sequential(nn.Linear(1, 1), ExactMean()).to(torch.bfloat16)
    mean = module[1]
    for _ in range(2):
        for value in range(1001):
            mean.update(torch.tensor(float(value)))
        assert mean.compute() == 500
        mean.reset()
    assert module[0].weight.dtype == torch.bfloat16
