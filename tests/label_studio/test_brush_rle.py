"""Brush RLE: the same bytes as Label Studio's own encoder, what its front end writes, and what is damaged."""

import json
import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.brush_rle import decode_alpha, encode_alpha
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
    assert bytes(encode_alpha(expected.astype(np.uint8))).hex() == code


OPACITIES = st.sampled_from([0, 1, 127, 255])


@settings(deadline=None)
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


@settings(deadline=None)
@given(
    arrays(
        np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 40)), elements=OPACITIES | st.integers(0, 255)
    )
)
@example(np.full((400, 400), 255, np.uint8))
@example(np.repeat(np.arange(8, dtype=np.uint8), [16384, 16385, 64, 65, 4, 5, 2, 3])[None])
def test_every_mask_survives_the_way_there_and_back(alpha: NDArray[np.uint8]) -> None:
    assert np.array_equal(decode_alpha(encode_alpha(alpha), *alpha.shape), alpha)


def test_masks_are_encoded_byte_for_byte_as_the_sdk_does_and_front_end_streams_are_read_as_it_does() -> None:
    rng = np.random.default_rng(0)
    masks = [*_masks(rng)]
    streams = [rle_of(rng.choice(PALETTE, 4 * 9 * n).ravel(), literal_packs=True) for n in range(1, 30)]
    theirs = json.loads(_sdk(json.dumps({"masks": [m.tolist() for m in masks], "streams": streams})))
    for mask, code in zip(masks, theirs["codes"], strict=True):
        assert encode_alpha(mask) == code, mask.shape
        assert np.array_equal(decode_alpha(code, *mask.shape), mask)
    for n, (stream, values) in enumerate(zip(streams, theirs["values"], strict=True), start=1):
        assert decode_alpha(stream, 9, n).ravel().tolist() == values[3::4]


PALETTE = np.array([0, 0, 0, 255, 255, 90], np.uint8)


def _masks(rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Nothing, everything, one pixel, runs at and beyond every run size, noise, and shapes."""
    lengths = [1, 2, 3, 4, 5, 16, 17, 64, 65, 16383, 16384, 16385, 32768, 32769]
    runs = [np.repeat(np.array([0, 255, 0], np.uint8), [7, n, 3])[None] for n in lengths]
    plain = [np.full(size, v, np.uint8) for size in ((1, 1), (3, 4), (200, 200)) for v in (0, 1, 255)]
    noise = [rng.integers(0, 256, (13, 17 + n), np.uint8) for n in range(8)]
    shapes = [(rng.random((1 + n, 31 - n)) < n / 30).astype(np.uint8) * np.uint8(255) for n in range(30)]
    return [*runs, *plain, *noise, *shapes]


def _sdk(request: str) -> str:
    """What label_studio_sdk answers, in the environment that has it."""
    python = Path(__file__).parents[2] / ".venv-label-studio" / "bin" / "python"
    if not python.exists():
        reason = f"needs Label Studio's own environment at {python.parents[1]}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    script = """
import json, sys
import numpy as np
from label_studio_sdk.converter.brush import decode_rle, mask2rle
asked = json.load(sys.stdin)
codes = [[int(b) for b in mask2rle(np.array(mask, np.uint8))] for mask in asked["masks"]]
json.dump({"codes": codes, "values": [decode_rle(s).tolist() for s in asked["streams"]]}, sys.stdout)
"""
    done = subprocess.run(
        [python, "-W", "ignore", "-c", script],
        input=request,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout


@settings(deadline=None)
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


def test_a_few_bytes_that_claim_a_huge_picture_ask_for_no_memory() -> None:
    side = 14_000
    code = [*(side * side * 4).to_bytes(4, "big"), 0x39, 0x1B, 0xFF, *[255] * 50]
    began = time.perf_counter()
    with pytest.raises(LabelFormatError, match="cut short"):
        decode_alpha(code, side, side)
    assert time.perf_counter() - began < 1


def test_what_stands_behind_the_last_value_does_not_count() -> None:
    assert np.array_equal(decode_alpha([*WHOLE, 7, 7, 7], 2, 3), decode_alpha(WHOLE, 2, 3))
