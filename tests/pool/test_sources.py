"""Folders and lists of images."""

from pathlib import Path

import pytest

from mad_backend.core.records import PoolImage
from mad_backend.errors import PoolError
from mad_backend.pool.sources import list_images, list_labelled
from mad_backend.settings import SourceSettings


def folder(root: Path, *names: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def source(
    images: Path, name: str = "s", ids: Path | None = None, masks: Path | None = None
) -> SourceSettings:
    return SourceSettings(name=name, images=images, list=ids, masks=masks)


def test_every_image_below_a_folder_is_found_in_order_and_other_files_are_not(tmp_path: Path) -> None:
    root = folder(tmp_path / "i", "b.JPG", "a.b.png", "deep/c.webp", "notes.txt")
    assert list_images([source(root)]) == [
        PoolImage("s/a.b", str(root / "a.b.png")),
        PoolImage("s/b", str(root / "b.JPG")),
        PoolImage("s/deep/c", str(root / "deep/c.webp")),
    ]


def test_a_list_chooses_images_and_may_have_blank_lines_and_repeats(tmp_path: Path) -> None:
    root = folder(tmp_path / "i", "a.png", "b.png", "c.png")
    ids = tmp_path / "list.txt"
    ids.write_text("c\n\n a \nc\n")
    assert [i.image_id for i in list_images([source(root, ids=ids)])] == ["s/a", "s/c"]


def test_the_same_name_in_two_sources_gives_two_images(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "1", "a.png"), folder(tmp_path / "2", "a.png")
    assert [i.image_id for i in list_images([source(one, "x"), source(two, "y")])] == ["x/a", "y/a"]


def test_two_sources_of_one_name_may_not_share_an_id(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "1", "a.png"), folder(tmp_path / "2", "a.png")
    with pytest.raises(PoolError, match=r"\['s/a'\] occur in two sources"):
        list_images([source(one), source(two)])


def test_two_files_of_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="have the same id"):
        list_images([source(folder(tmp_path / "i", "a.png", "a.jpg"))])


def test_a_missing_folder_an_empty_one_and_a_missing_list_are_three_errors(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match='source "s": there is no folder'):
        list_images([source(tmp_path / "none")])
    with pytest.raises(PoolError, match='source "s": no image in'):
        list_images([source(folder(tmp_path / "empty", "notes.txt"))])
    with pytest.raises(PoolError, match="cannot read list"):
        list_images([source(folder(tmp_path / "i", "a.png"), ids=tmp_path / "none.txt")])


def test_a_listed_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    ids = tmp_path / "list.txt"
    ids.write_text("a\nzebra\n")
    with pytest.raises(PoolError, match=r"1 of 2 ids of .*, e\.g\. zebra"):
        list_images([source(folder(tmp_path / "i", "a.png"), ids=ids)])


def test_labelled_images_come_with_their_masks(tmp_path: Path) -> None:
    root, masks = folder(tmp_path / "i", "a.jpg"), folder(tmp_path / "m", "a.png")
    found = list_labelled([source(root, masks=masks)])
    assert [(f.image.image_id, f.mask) for f in found] == [("s/a", masks / "a.png")]


def test_a_source_without_masks_and_a_missing_mask_are_named(tmp_path: Path) -> None:
    root = folder(tmp_path / "i", "a.jpg", "b.jpg")
    with pytest.raises(PoolError, match='source "s" needs masks'):
        list_labelled([source(root)])
    with pytest.raises(PoolError, match=r"1 of 2 label maps are missing in .*, e\.g\. b\.png"):
        list_labelled([source(root, masks=folder(tmp_path / "m", "a.png"))])
