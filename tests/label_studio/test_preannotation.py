"""What annotators start from: specks go to what surrounds them, and no budget is exceeded."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from mad_backend.core.labels import VOID, LabelMap, LabelSet
from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.answers import DrawingRules, own_interface, preannotate, regions_of
from mad_backend.label_studio.composition import compose
from mad_backend.label_studio.preannotation import Preannotation, without_specks
from tests.label_studio.region_maker import LABELS, STREET

MAPS = arrays(
    np.uint8,
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    elements=st.sampled_from([0, 0, 0, 1, 2, VOID]),
)


def predrawn(
    label_map: LabelMap, min_region: int, max_bytes: int, labels: LabelSet = LABELS
) -> Preannotation:
    return preannotate(label_map, own_interface(labels), labels, DrawingRules(min_region, max_bytes))


def components(label_map: LabelMap) -> list[int]:
    """The sizes of all 4-connected components, as scipy finds them."""
    sizes: list[int] = []
    for class_id in np.unique(label_map):
        numbers, _ = ndimage.label(label_map == class_id)
        sizes += np.bincount(numbers.ravel())[1:].tolist()
    return sizes


@settings(deadline=None, max_examples=200)
@given(MAPS, st.integers(1, 30))
def test_no_component_is_smaller_than_wanted_unless_the_map_is(label_map: LabelMap, least: int) -> None:
    cleaned = without_specks(label_map, least)
    assert min(components(cleaned)) >= min(least, label_map.size)
    assert np.array_equal(without_specks(cleaned, least), cleaned), "stable"
    assert set(np.unique(cleaned)) <= set(np.unique(label_map))
    large = np.zeros(label_map.shape, bool)
    for class_id in np.unique(label_map):
        numbers, _ = ndimage.label(label_map == class_id)
        sizes = np.bincount(numbers.ravel())
        large |= (numbers > 0) & (sizes[numbers] >= least)
    assert np.array_equal(cleaned[large], label_map[large]), "what is large stays as it is"


@settings(deadline=None)
@given(MAPS)
def test_without_a_smallest_size_nothing_is_cleaned(label_map: LabelMap) -> None:
    regions = predrawn(label_map, 1, 100_000).regions
    assert [*regions] == regions_of(label_map, LABELS)
    assert np.array_equal(compose(regions, LABELS, *label_map.shape).label_map, label_map)


def test_a_speck_goes_to_the_class_most_frequent_on_its_border_and_the_smaller_id_of_two() -> None:
    speck = [
        [1, 1, 1, 2],
        [1, 0, 0, 2],
        [1, 1, 2, 2],
    ]
    assert without_specks(np.array(speck, np.uint8), 3).tolist() == [[1, 1, 1, 2], [1, 1, 1, 2], [1, 1, 2, 2]]
    between = np.array([[2, 2, 0, 1, 1]], np.uint8)
    assert without_specks(between, 2).tolist() == [[2, 2, 1, 1, 1]]


def test_holes_are_filled_and_specks_of_void_and_of_background_go_too() -> None:
    label_map = np.full((9, 9), 1, np.uint8)
    label_map[4, 4], label_map[1, 1:3] = 0, VOID
    assert (without_specks(label_map, 3) == 1).all()


def test_specks_that_touch_each_other_are_given_away_smallest_first() -> None:
    row = np.array([[0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0]], np.uint8)
    assert without_specks(row, 2).tolist() == [[0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]]
    assert without_specks(row, 3).tolist() == [[0] * 11]


def test_diagonal_neighbours_are_two_components() -> None:
    label_map = np.zeros((6, 6), np.uint8)
    label_map[2, 2] = label_map[3, 3] = 1
    assert not without_specks(label_map, 2).any()


def test_the_given_map_is_left_alone_whatever_its_layout() -> None:
    label_map = np.asfortranarray(np.eye(8, dtype=np.uint8))
    assert not without_specks(label_map, 2).any()
    assert np.array_equal(label_map, np.eye(8))


NOISE = np.random.default_rng(0).choice(np.array([0, 1, 2, VOID], np.uint8), (375, 500))


@pytest.mark.parametrize("max_bytes", [2_000, 10_000, 30_000, 100_000])
@pytest.mark.parametrize("labels", [LABELS, STREET])
def test_noise_stays_below_every_budget(max_bytes: int, labels: LabelSet) -> None:
    noise = np.where(NOISE == 2, 0, NOISE) if labels is STREET else NOISE
    found = predrawn(noise, 1, max_bytes, labels)
    assert len(json.dumps(found.regions).encode()) <= max_bytes
    assert found.notes


def test_the_notes_say_what_was_done_for_the_budget() -> None:
    found = predrawn(NOISE, 4, 40_000)
    assert found.regions
    (note,) = found.notes
    assert re.fullmatch(
        r"regions of fewer than \d+ pixels were cleaned away, where 4 was wanted, .* 40000 bytes", note
    )


def test_classes_too_ragged_for_any_cleaning_are_left_out_the_largest_first() -> None:
    """Combs: one component each, however large the specks that are cleaned."""
    label_map = np.zeros((64, 200), np.uint8)
    label_map[:30, ::2] = 1
    label_map[0] = 1
    label_map[40:44, 10:40] = 2
    roomy = predrawn(label_map, 16, 10_000)
    assert (len(roomy.regions), roomy.notes) == (2, ())
    sizes = {r["value"]["bitmasklabels"][0]: len(json.dumps([r])) for r in roomy.regions}
    assert sizes["cat"] > sizes["dog"]
    tight = predrawn(label_map, 16, sizes["dog"])
    assert [r["value"]["bitmasklabels"] for r in tight.regions] == [["dog"]]
    assert "left out cat: too ragged" in tight.notes[-1]


def test_class_ids_that_the_label_set_does_not_have_are_refused() -> None:
    with pytest.raises(LabelFormatError, match="7"):
        predrawn(np.full((9, 9), 7, np.uint8), 4, 10_000)
