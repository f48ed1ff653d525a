"""Losses against numbers computed without PyTorch."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from mad_backend.core.labels import VOID
from training.finetuning.losses import cross_entropy, divergence


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def truth() -> torch.Tensor:
    drawn = torch.randint(0, 3, (2, 6, 5), generator=torch.Generator().manual_seed(1))
    drawn[0, :3] = VOID
    return drawn


def test_cross_entropy_is_a_weighted_mean_over_known_pixels(
    logits: torch.Tensor, truth: torch.Tensor
) -> None:
    weights = np.array([0.5, 2.0, 1.0])
    chances, ids = log_softmax(logits.double().numpy()), truth.numpy()
    image, row, column = np.nonzero(ids != VOID)
    own = -chances[image, ids[image, row, column], row, column]
    by_class = weights[ids[image, row, column]]
    assert float(cross_entropy(logits, truth, align_corners=False)) == pytest.approx(own.mean(), rel=1e-5)
    weighted = cross_entropy(logits, truth, align_corners=False, weights=torch.tensor(weights).float())
    assert float(weighted) == pytest.approx((own * by_class).sum() / by_class.sum(), rel=1e-5)


def test_a_batch_without_a_known_pixel_has_no_loss_and_a_gradient_of_zero(logits: torch.Tensor) -> None:
    logits.requires_grad_()
    loss = cross_entropy(logits, torch.full((2, 6, 5), VOID), align_corners=False, weights=torch.ones(3))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("stride", [2, 4])
def test_every_nth_pixel_has_the_loss_that_it_has_among_all(
    logits: torch.Tensor, stride: int, *, align_corners: bool
) -> None:
    truth = torch.randint(0, 3, (2, 33, 21), generator=torch.Generator().manual_seed(2))
    full = functional.interpolate(logits, size=(33, 21), mode="bilinear", align_corners=align_corners)
    wanted = functional.cross_entropy(full[:, :, ::stride, ::stride], truth[:, ::stride, ::stride])
    found = cross_entropy(logits, truth, align_corners=align_corners, stride=stride)
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)


def test_one_output_is_a_score_of_the_second_of_two_classes(
    logits: torch.Tensor, truth: torch.Tensor
) -> None:
    truth = torch.where(truth == VOID, VOID, truth % 2)
    score = logits[:, :1]
    wanted = functional.binary_cross_entropy_with_logits(
        score[:, 0][truth != VOID], truth[truth != VOID].float()
    )
    assert float(cross_entropy(score, truth, align_corners=False)) == pytest.approx(float(wanted), rel=1e-5)


def test_divergence_is_kl_of_softened_answers_times_temperature_squared(logits: torch.Tensor) -> None:
    other = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(3))
    for temperature in (1.0, 2.0, 5.0):
        own, given = (log_softmax(part.double().numpy() / temperature) for part in (logits, other))
        wanted = temperature**2 * (np.exp(given) * (given - own)).sum(1)
        np.testing.assert_allclose(
            divergence(logits, other, temperature).numpy(), wanted, rtol=2e-4, atol=1e-5
        )
    assert float(divergence(logits, logits + 7, 2).abs().max()) < 1e-5, "a constant changes no answer"
