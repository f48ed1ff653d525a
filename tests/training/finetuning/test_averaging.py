"""Averages and mixtures of weights."""

from typing import Any

import torch

from training.finetuning.averaging import RunningAverage, copied
from training.finetuning.interpolation import mixed


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))


def test_the_average_over_steps_is_as_by_hand_and_leaves_the_network_alone() -> None:
    module = network()
    average = RunningAverage(module, 0.9)
    wanted = copied(module.state_dict())
    for _ in range(3):
        module(torch.randn(2, 3, 4, 4))
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update(module)
        for name, value in module.state_dict().items():
            wanted[name] = 0.9 * wanted[name] + 0.1 * value if value.is_floating_point() else value.clone()
    for name, value in average.weights.items():
        torch.testing.assert_close(value, wanted[name])
    own = copied(module.state_dict())
    with average.applied(module):
        assert all(torch.equal(value, average.weights[name]) for name, value in module.state_dict().items())
    assert all(torch.equal(value, own[name]) for name, value in module.state_dict().items())


def test_a_mixture_is_exactly_the_old_at_0_and_the_new_at_1_with_counters_of_the_new() -> None:
    old = copied(network().state_dict())
    new = {name: value + 3 for name, value in old.items()}
    for share in (0.0, 0.25, 1.0):
        for name, value in mixed(old, new, share).items():
            if name.endswith("num_batches_tracked"):
                assert value == new[name] == 3
            elif share == 0.25:
                torch.testing.assert_close(value, old[name] + 0.75)
            else:
                assert torch.equal(value, (new if share else old)[name])
