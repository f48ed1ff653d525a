"""Label sets, and how a model's own classes map to them."""

import numpy as np
import pytest

from mad_backend.core.labels import VOID, LabelClass, LabelSet, class_table
from mad_backend.errors import ModelError, SettingsError


def label_set(*names: str, has_background: bool = True) -> LabelSet:
    return LabelSet("pets", tuple(LabelClass(n, (9, 8, 7)) for n in names), has_background)


PETS = label_set("background", "cat", "dog")


def test_the_foreground_leaves_out_the_background_where_there_is_one() -> None:
    assert PETS.foreground_ids == (1, 2)
    assert label_set("road", "sky", has_background=False).foreground_ids == (0, 1)


def test_an_unknown_class_name_lists_the_known_ones() -> None:
    assert PETS.id_of("dog") == 2
    with pytest.raises(
        SettingsError, match='"cow" is not in label set "pets", which has: background, cat, dog'
    ):
        PETS.id_of("cow")


def test_a_name_used_twice_is_refused_and_named() -> None:
    with pytest.raises(SettingsError, match=r"\['cat'\] twice"):
        label_set("background", "cat", "cat")


@pytest.mark.parametrize("count", [0, 1, 256])
def test_too_few_or_too_many_classes_are_refused(count: int) -> None:
    with pytest.raises(SettingsError, match=f"has {count} classes; wanted 2 to 255"):
        label_set(*(f"c{i}" for i in range(count)))


def test_255_classes_fit_beside_void() -> None:
    assert len(label_set(*(f"c{i}" for i in range(255)))) == 255


def test_the_palette_has_a_colour_for_every_uint8() -> None:
    palette = PETS.palette()
    assert (palette.shape, palette.dtype) == ((256, 3), np.uint8)
    assert palette[2].tolist() == [9, 8, 7]
    assert palette[3].tolist() == palette[VOID].tolist() == [224, 224, 224]


def test_classes_map_by_name_by_mapping_and_to_void() -> None:
    table = class_table("m", ["dog", "puma", "tree", "background"], PETS, {"puma": "cat", "tree": "ignore"})
    assert table[:5].tolist() == [2, 1, VOID, 0, VOID]


def test_every_unmapped_class_is_named_with_the_cure() -> None:
    with pytest.raises(
        ModelError, match=r'model "m": classes \[\'cow\', \'hen\'\].*models\.m\.classes.*"ignore"'
    ):
        class_table("m", ["cow", "cat", "hen"], PETS, {})


def test_a_mapping_to_a_class_that_does_not_exist_names_the_model_class() -> None:
    with pytest.raises(ModelError, match=r"\['puma'\] are not in label set"):
        class_table("m", ["puma"], PETS, {"puma": "lion"})


def test_a_mapping_of_a_class_that_the_model_does_not_have_is_named() -> None:
    with pytest.raises(ModelError, match=r'model "m" has no class \[\'pumma\'\].*it has: puma'):
        class_table("m", ["puma"], PETS, {"pumma": "cat"})


def test_several_classes_of_a_model_may_go_to_one() -> None:
    table = class_table("m", ["puma", "cat", "wolf"], PETS, {"puma": "cat", "wolf": "dog"})
    assert table[:3].tolist() == [1, 1, 2]


@pytest.mark.parametrize(("rest", "meant"), [("background", 0), ("dog", 2), ("ignore", VOID)])
def test_a_star_maps_what_is_neither_named_nor_in_the_label_set(rest: str, meant: int) -> None:
    table = class_table("m", ["cat", "puma", "tree", "hen"], PETS, {"puma": "dog", "*": rest})
    assert table[:4].tolist() == [1, 2, meant, meant]


def test_a_star_to_no_class_of_the_label_set_is_refused() -> None:
    with pytest.raises(ModelError, match=r'maps "\*" to "lion"; wanted one of background, cat, dog, ignore'):
        class_table("m", ["cat"], PETS, {"*": "lion"})


@pytest.mark.parametrize("count", [3, 255, 256, 257, 1000])
def test_the_table_has_an_entry_for_every_own_class_and_every_byte_and_ends_with_void(count: int) -> None:
    names = [f"class {n}" for n in range(count)]
    table = class_table("m", names, PETS, {"*": "cat"})
    assert table.dtype == np.uint8
    assert (table[:count] == 1).all()
    assert len(table) >= max(256, count + 1)
    assert (table[count:] == VOID).all()
