"""The index of image keys against a dict."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mad_backend.pool.ids import KeyIndex, image_key, image_keys

KEYS = st.integers(0, 12)


def test_keys_of_ids_are_64_bit_and_the_same_one_by_one_and_at_once() -> None:
    ids = ["a", "ü/ö", "a" * 5000, ""]
    assert image_keys(ids).tolist() == [image_key(i) for i in ids]
    assert len(set(image_keys(ids).tolist())) == 4


@given(st.lists(st.one_of(st.lists(KEYS), st.just("look")), max_size=12))
def test_the_index_finds_the_last_row_of_every_key_whenever_it_is_asked(steps: list[list[int] | str]) -> None:
    index, expected, rows = KeyIndex(), {}, 0
    for step in [*steps, "look"]:
        if isinstance(step, list):
            index.add(step)
            expected.update({key: rows + i for i, key in enumerate(step)})
            rows += len(step)
            assert [index.row(k) for k in range(13)] == [expected.get(k) for k in range(13)]
        else:
            asked = np.arange(13, dtype=np.uint64)
            assert index.rows(asked).tolist() == [expected.get(k, -1) for k in range(13)]
            assert len(index) == len(expected)
