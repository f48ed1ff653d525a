"""Image ids as bytes behave as the list of strings they stand for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mad_backend.core.id_column import IdColumn

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)


@given(st.lists(TEXT, max_size=8))
def test_ids_come_back_as_they_were(ids: list[str]) -> None:
    column = IdColumn.of(ids)
    assert list(column) == ids
    assert len(column) == len(ids)
    assert column[1:5] == ids[1:5]
    assert column[::-2] == ids[::-2]
    assert IdColumn.of(column) is column
    if ids:
        assert column[-1] == ids[-1]


@given(TEXT, TEXT)
def test_bytes_sort_as_strings_do(one: str, other: str) -> None:
    assert (one.encode() < other.encode()) is (one < other)


def test_an_index_beyond_the_end_is_refused() -> None:
    for index in (1, -2):
        with pytest.raises(IndexError):
            IdColumn.of(["a"])[index]
