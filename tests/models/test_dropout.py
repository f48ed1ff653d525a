"""Dropout at work in networks that are in evaluation: what is dropped, how much, and by which random numbers."""

from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mad_backend.models.dropout import Dropout, active_dropout

ONES = torch.ones(1, 400, 6, 5)


def dropped(network: Any, images: Tensor = ONES, seed: int = 0) -> Tensor:
    with active_dropout(torch.Generator().manual_seed(seed)) as calls:
        answer: Tensor = network(images)
    assert len(calls) == 1
    assert calls[0][0].share == 0.25
    assert torch.equal(calls[0][1], answer)
    return answer


@pytest.mark.parametrize("by_channel", [False, True])
def test_values_or_whole_channels_are_dropped_and_the_rest_keeps_the_mean(*, by_channel: bool) -> None:
    answer = dropped((nn.Dropout2d if by_channel else nn.Dropout)(0.25).eval())
    torch.testing.assert_close(answer[answer != 0].unique(), torch.tensor([1 / 0.75]))
    assert float((answer == 0).float().mean()) == pytest.approx(0.25, abs=0.05)
    by_place = answer.flatten(2)
    is_whole = (by_place == by_place[:, :, :1]).all()
    assert bool(is_whole) is by_channel


def test_functional_dropout_of_a_network_in_evaluation_is_at_work() -> None:
    answer = dropped(lambda images: functional.dropout(images, 0.25, training=False))
    assert (answer == 0).any()


def test_the_same_seed_drops_the_same() -> None:
    network = nn.Dropout(0.25).eval()
    before = torch.get_rng_state()
    assert torch.equal(dropped(network), dropped(network))
    assert not torch.equal(dropped(network), dropped(network, seed=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_of_nothing_is_no_call_and_dropout_of_everything_leaves_nothing() -> None:
    with active_dropout(torch.Generator()) as calls:
        assert torch.equal(nn.Dropout(0.0)(ONES), ONES)
    assert not calls
    assert not Dropout(1.0, is_by_channel=False).of(ONES, torch.Generator()).any()


def test_other_threads_and_what_follows_see_no_dropout() -> None:
    network, answers = nn.Dropout(0.25).eval(), []
    with active_dropout(torch.Generator()):
        thread = Thread(target=lambda: answers.append(network(ONES)))
        thread.start()
        thread.join()
    answers.append(network(ONES))
    assert all(torch.equal(answer, ONES) for answer in answers)
