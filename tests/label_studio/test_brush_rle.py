"""Brush RLE: what Label Studio's own encoder and front end write, and what is damaged."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.brush_rle import decode_alpha
from tests.label_studio.rle_encoder import rle_of

VECTORS = {
    "two rows": ([[0, 255, 255], [0, 0, 255]], "00000018391bfc6013ffce011ff8"),
    "one pixel": ([[255]], "00000004391bfc7fe0"),
    "every opacity": ([[0, 127, 128, 255]], "00000010391bfc6011bfc7011ff8"),
    "long runs": (
        np.pad(np.full((1, 280), 255), ((150, 149), (10, 10))),
        "00057e40391bffffff00ffffe01efd1c03822ffffffff00ffffe01eea5c000",
    ),
    "one run": (np.full((200, 200), 255), "00027100391bfffffffffffffffdc3fffc"),
}
"""Written by `mask2rle` of label_studio_sdk 2.1.2."""


@pytest.mark.parametrize(("alpha", "code"), VECTORS.values(), ids=VECTORS.keys())
def test_what_the_sdk_wrote_is_read(alpha: object, code: str) -> None:
    expected = np.asarray(alpha)
    found = decode_alpha(list(bytes.fromhex(code)), *expected.shape)
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)


OPACITIES = st.sampled_from([0, 1, 127, 255])


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 40), st.just(4)), elements=OPACITIES),
    st.booleans(),
)
@example(np.full((200, 400, 4), 255, np.uint8), False)
@example(np.arange(4 * 3 * 100, dtype=np.uint16).astype(np.uint8).reshape(3, 100, 4), True)
def test_every_picture_is_read_whatever_its_colours_and_however_it_is_packed(
    rgba: NDArray[np.uint8],
    literal_packs: bool,
) -> None:
    height, width = rgba.shape[:2]
    found = decode_alpha(rle_of(rgba.ravel(), literal_packs=literal_packs), height, width)
    assert np.array_equal(found, rgba[..., 3])


@given(st.lists(st.integers(0, 255), max_size=60), st.integers(1, 5), st.integers(1, 5))
def test_damage_is_refused_and_never_read_beyond(tail: list[int], height: int, width: int) -> None:
    code = [*(height * width * 4).to_bytes(4, "big"), 0x39, 0x1B, 0xF8, *tail]
    with suppress(LabelFormatError):
        assert decode_alpha(code, height, width).shape == (height, width)


WHOLE = list(bytes.fromhex("00000018391bfc6013ffce011ff8"))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (WHOLE[:-2], "cut short: 20 of 24 values"),
        (WHOLE[:7], "cut short: 0 of 24"),
        (WHOLE[:4], "a list of bytes"),
        ([], "a list of bytes"),
        (7, "a list of bytes"),
        ("rle", "a list of bytes"),
        ([*WHOLE, 256], "a list of bytes"),
        ([*WHOLE, 0.5], "a list of bytes"),
        ([0, 0, 0, 16, *WHOLE[4:]], "holds 16 values; an RGBA picture of height 2, width 3 has 24"),
        ([255, 255, 255, 255, *WHOLE[4:]], "holds 4294967295 values"),
        ([*WHOLE[:4], 0x79, *WHOLE[5:]], "words of 16 bits; wanted 8"),
    ],
)
def test_a_code_that_is_no_picture_of_this_size_is_refused(code: object, reason: str) -> None:
    with pytest.raises(LabelFormatError, match=reason):
        decode_alpha(code, 2, 3)
