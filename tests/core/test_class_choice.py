"""Class choice equals torch's interpolation and argmax, on noise and on regions, at any scale and in any layout."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, from_numpy
from torch.nn.functional import interpolate

from mad_backend.core.class_choice import choose_classes

Size = tuple[int, int]
SIDES = st.integers(1, 40)


def noise(outputs: int, height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 4, (outputs, height, width)).astype(np.float32)


def regions(outputs: int, height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    """Few and smooth class borders, as trained networks give."""
    coarse = from_numpy(noise(outputs, 5, 6, seed))
    return np.ascontiguousarray(interpolate(coarse[None], (height, width), mode="bicubic")[0].numpy())


def upsampled(logits: NDArray[np.float32], size: Size, align_corners: bool) -> Tensor:
    return interpolate(
        from_numpy(np.ascontiguousarray(logits))[None], size, mode="bilinear", align_corners=align_corners
    )[0]


def check(logits: NDArray[np.float32], size: Size, region: Size, align_corners: bool) -> None:
    values = upsampled(logits, size, align_corners)[:, : region[0], : region[1]]
    expected = values.argmax(0).numpy()
    chosen = choose_classes(logits, size, region, align_corners)
    assert chosen.shape == region
    assert chosen.dtype == (np.uint8 if len(logits) <= 256 else np.uint16)
    wrong = chosen != expected
    assert wrong.mean() <= 1e-4
    if wrong.any():
        best = values.topk(2, 0).values
        assert float((best[0] - best[1]).numpy()[wrong].max()) < 1e-4


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("make", [noise, regions])
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((21, 33, 33), (513, 513)),
        ((21, 65, 65), (513, 513)),
        ((19, 64, 128), (512, 1024)),
        ((8, 129, 97), (513, 385)),
        ((150, 24, 32), (96, 128)),
        ((1000, 9, 7), (36, 28)),
        ((21, 65, 65), (65, 65)),
        ((21, 65, 65), (20, 31)),
        ((3, 1, 1), (9, 9)),
        ((3, 1, 5), (1, 1)),
        ((1, 4, 4), (8, 8)),
    ],
)
def test_it_equals_torch(make: object, shape: tuple[int, int, int], size: Size, align_corners: bool) -> None:
    assert callable(make)
    region = (max(1, size[0] * 3 // 4), max(1, size[1] - 3))
    check(make(*shape), size, region, align_corners)
    check(make(*shape, seed=1), size, size, align_corners)


@given(st.integers(1, 12), SIDES, SIDES, SIDES, SIDES, st.booleans(), st.integers(0, 1000))
@settings(max_examples=200, deadline=None)
def test_it_equals_torch_at_any_scale(
    outputs: int, height: int, width: int, rows: int, columns: int, align_corners: bool, seed: int
) -> None:
    # Whole numbers tie often, and a tie goes to the first class.
    logits = np.rint(noise(outputs, height, width, seed) * 8)
    values = upsampled(logits, (rows, columns), align_corners).topk(min(2, outputs), 0).values
    clear = (values[0] - values[-1]).numpy() > 1e-4 if outputs > 1 else np.ones((rows, columns), bool)
    chosen = choose_classes(logits, (rows, columns), (rows, columns), align_corners)
    expected = upsampled(logits, (rows, columns), align_corners).argmax(0).numpy()
    assert np.array_equal(chosen[clear], expected[clear])


def test_equal_classes_go_to_the_first() -> None:
    logits = np.zeros((4, 5, 5), np.float32)
    logits[2:] = 1
    assert (choose_classes(logits, (17, 17), (17, 17), align_corners=True) == 2).all()


@pytest.mark.parametrize("make", [noise, regions])
def test_the_layout_does_not_matter(make: object) -> None:
    assert callable(make)
    planes = make(21, 33, 40)
    channels_last = np.ascontiguousarray(planes.transpose(1, 2, 0)).transpose(2, 0, 1)
    of_a_batch = np.stack([planes, planes], axis=1)[:, 1]
    every_other = np.repeat(planes, 2, axis=2)[:, :, ::2]
    expected = choose_classes(planes, (257, 313), (200, 313), align_corners=False)
    for same in (channels_last, of_a_batch, every_other, planes.astype(np.float64)):
        assert np.array_equal(choose_classes(same, (257, 313), (200, 313), align_corners=False), expected)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("shape", [(150, 170), (61, 80)])
def test_a_region_resampled_to_another_shape_is_nearly_what_two_interpolations_give(
    align_corners: bool, shape: Size
) -> None:
    logits, region = regions(21, 17, 17), (100, 120)
    canvas = upsampled(logits, (129, 129), align_corners)[:, : region[0], : region[1]]
    twice = upsampled(canvas.numpy(), shape, align_corners=False).argmax(0).numpy()
    chosen = choose_classes(logits, (129, 129), region, align_corners, shape)
    assert chosen.shape == shape
    assert (chosen == twice).mean() > 0.995
    assert np.array_equal(
        choose_classes(logits, (129, 129), region, align_corners, region),
        choose_classes(logits, (129, 129), region, align_corners),
    )


def test_not_a_number_harms_only_its_surroundings() -> None:
    logits = regions(5, 17, 17)
    broken = logits.copy()
    broken[3, 8, 8] = np.nan
    broken[:, 0, 0] = np.nan
    broken[1, 16, 16] = -np.inf
    chosen = choose_classes(broken, (129, 129), (129, 129), align_corners=True)
    expected = choose_classes(logits, (129, 129), (129, 129), align_corners=True)
    assert chosen.max() < 5
    assert np.array_equal(chosen[:, 80:112], expected[:, 80:112])
