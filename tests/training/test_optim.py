"""Optimizers by name."""

import pytest
from torch import nn

from spanets.recipe import Optim
from spanets.training.optim import make_optimizer
from spanets_runtime.errors import UsageError


def test_an_unknown_optimizer_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="'adamv'; did you mean 'adam'"):
        make_optimizer(nn.Linear(2, 2), Optim(name="adamv"))
