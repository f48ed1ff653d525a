"""The average of a network's weights over the steps of its training."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

Weights = dict[str, torch.Tensor]


class RunningAverage:
    """An exponential average of a network's weights over optimiser steps, beginning with those it has now.

    After each step average = momentum x average + (1 - momentum) x weights, of parameters and of batch statistics;
    counters are taken as they are.
    """

    def __init__(self, module: Any, momentum: float) -> None:
        self._momentum = momentum
        self.weights: Weights = copied(module.state_dict())

    def update(self, module: Any) -> None:
        """Takes in the weights after one step."""
        with torch.no_grad():
            for name, value in module.state_dict().items():
                kept = self.weights[name] = self.weights[name].to(value.device)
                if value.is_floating_point():
                    kept.lerp_(value, 1 - self._momentum)
                else:
                    kept.copy_(value)

    @contextmanager
    def applied(self, module: Any) -> Iterator[None]:
        """While this lasts `module` has the averaged weights; then its own again, to the bit."""
        own = copied(module.state_dict())
        module.load_state_dict(self.weights)
        try:
            yield
        finally:
            module.load_state_dict(own)


def copied(weights: Mapping[str, torch.Tensor]) -> Weights:
    """Of a state_dict, whose tensors are the network's own."""
    return {name: value.detach().clone() for name, value in weights.items()}
