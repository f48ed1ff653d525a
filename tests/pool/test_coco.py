"""COCO instances as sources, and what is wrong with files of either kind."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from mad_backend.core.labels import VOID
from mad_backend.errors import ImageError, PoolError
from mad_backend.pool.coco_file import read_coco
from mad_backend.pool.sources import list_images, list_labelled
from mad_backend.pool.truths import Truth
from tests.pool.coco_files import (
    CATEGORIES,
    CLASSES,
    NO_MIRRORS,
    PETS,
    SIZE,
    STREET,
    as_other_processes_get_it,
    box,
    crowd_of,
    images,
    instance,
    labelled,
    source,
    write,
)


@pytest.fixture
def instances(tmp_path: Path) -> dict[str, Any]:
    """Of image 7 a large dog, a cat on it though it comes first, a tree beside, a crowd below all; none of image 14."""
    mask = np.zeros((SIZE, SIZE), np.bool_)
    mask[:, 3:15] = True
    return {
        "info": {"description": '} ], "annotations": [', "year": [2017, [1]]},
        "annotations": [
            instance(7, 17, box(4, 4, 8, 8), id=1),
            instance(21, 3, box(0, 0, 16, 2), id=2),
            instance(7, 3, box(2, 2, 12, 12), id=3),
            instance(7, 90, box(0, 14, 4, 16), id=4),
            instance(7, 17, crowd_of(mask), id=5, iscrowd=1),
            instance(99, 17, box(0, 0, 1, 1), id=6),
        ],
        "categories": list(CATEGORIES),
        "images": images(tmp_path / "images", "a.jpg", "deep/b.png", "c\u00e9.jpg"),
    }


@pytest.mark.parametrize("how", [{}, {"ensure_ascii": False}, {"indent": 1}, {"separators": (",", ":")}])
def test_instances_are_painted_the_smallest_on_top_and_crowds_are_void(
    tmp_path: Path, instances: dict[str, Any], how: dict[str, Any]
) -> None:
    found = labelled(source(write(tmp_path / "i.json", instances, **how)))
    wanted = np.zeros((SIZE, SIZE), np.uint8)
    wanted[:, 3:15] = VOID
    wanted[2:12, 2:12] = 2
    wanted[4:8, 4:8] = 1
    wanted[14:16, :4] = VOID
    assert list(found) == ["s/a", "s/c\u00e9", "s/deep/b"]
    np.testing.assert_array_equal(found["s/a"].truth.read(), wanted)
    assert not found["s/deep/b"].truth.read().any()
    assert found["s/c\u00e9"].truth.read().tolist() == [[2] * SIZE] * 2 + [[0] * SIZE] * 14


def test_of_two_instances_of_one_size_the_later_is_on_top(tmp_path: Path) -> None:
    content = {
        "images": images(tmp_path / "images", "a.jpg"),
        "categories": list(CATEGORIES),
        "annotations": [instance(7, 17, box(0, 0, 4, 4)), instance(7, 3, box(0, 2, 4, 6))],
    }
    label_map = labelled(source(write(tmp_path / "i.json", content)))["s/a"].truth.read()
    assert label_map[:, 0].tolist() == [1, 1, 2, 2, 2, 2] + [0] * 10


def test_where_no_class_is_background_unpainted_pixels_are_void(
    tmp_path: Path, instances: dict[str, Any]
) -> None:
    found = labelled(source(write(tmp_path / "i.json", instances)), STREET)
    assert found["s/c\u00e9"].truth.read().tolist() == [[1] * SIZE] * 2 + [[VOID] * SIZE] * 14


def test_a_truth_can_be_handed_to_another_process_and_is_small(
    tmp_path: Path, instances: dict[str, Any]
) -> None:
    instances["annotations"] *= 20
    item = labelled(source(write(tmp_path / "i.json", instances)))["s/a"]
    np.testing.assert_array_equal(as_other_processes_get_it(item.truth).read(), item.truth.read())
    assert len(TypeAdapter(Truth).dump_json(item.truth)) < 80 * 40
    assert str(item.truth) == f"{tmp_path / 'i.json'} (image 7)"


def test_a_digest_changes_with_the_annotations_of_the_image_and_with_the_classes(
    tmp_path: Path, instances: dict[str, Any]
) -> None:
    def digests(**keys: Any) -> list[str]:
        found = labelled(source(write(tmp_path / "i.json", instances), **keys))
        return [item.truth.digest() for item in found.values()]

    before, other = digests(), digests(classes={**CLASSES, "cat": "ignore"})
    instances["annotations"][0]["segmentation"] = box(4, 4, 18, 19)
    after = digests()
    assert len({found[0] for found in (before, other, after)}) == 3
    assert before[1:] == other[1:] == after[1:]


def test_a_file_that_changed_after_it_was_listed_is_not_misread(
    tmp_path: Path, instances: dict[str, Any]
) -> None:
    path = write(tmp_path / "i.json", instances)
    truth = labelled(source(path))["s/a"].truth
    write(path, instances, indent=2)
    with pytest.raises(ImageError, match=r"image 7: .*i\.json has changed since it was listed"):
        truth.read()
    path.unlink()
    with pytest.raises(ImageError, match=r"image 7: .*i\.json cannot be read"):
        truth.read()


def test_a_file_is_parsed_once_for_as_long_as_it_is_the_same(
    tmp_path: Path, instances: dict[str, Any]
) -> None:
    path = write(tmp_path / "i.json", instances)
    first = read_coco(path, "x")
    assert read_coco(path, "x") is first
    write(path, instances, indent=2)
    assert read_coco(path, "x") is not first


def test_a_pool_needs_no_annotations_and_its_images_may_lie_elsewhere(tmp_path: Path) -> None:
    content = {"images": [{"id": 1, "file_name": "x/a.jpg", "coco_url": "http://h/a.jpg"}], "categories": []}
    wanted = source(write(tmp_path / "info.json", content), images="s3://bucket/coco/", classes={})
    (image,) = list_images([wanted], NO_MIRRORS)
    assert (image.image_id, image.path, image.etag) == ("s/x/a", "s3://bucket/coco/x/a.jpg", "")


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "/etc/secret.jpg", "a/../../secret.jpg", "file:///secret.jpg", ""]
)
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    images(tmp_path, "secret.jpg")
    entry = {"id": 1, "file_name": name, "height": SIZE, "width": SIZE}
    wanted = source(write(tmp_path / "i.json", {"images": [entry], "categories": list(CATEGORIES)}))
    with pytest.raises(
        PoolError, match=r'source "s": .*i\.json, image 1: file_name .* leads out of its folder'
    ):
        list_images([wanted], NO_MIRRORS)


def changed(instances: dict[str, Any], key: str, position: int, **fields: Any) -> dict[str, Any]:
    instances[key][position] = {k: v for k, v in (instances[key][position] | fields).items() if v is not None}
    return instances


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"key": "annotations", "position": 1, "category_id": 5},
            r"category 5, which is not in \"categories\"; wanted .*3, 17, 90",
        ),
        (
            {"key": "annotations", "position": 1, "segmentation": None},
            "annotation 2 has neither segmentation nor",
        ),
        (
            {"key": "annotations", "position": 1, "image_id": "7"},
            r'"annotations" wants "image_id" of type int',
        ),
        (
            {"key": "annotations", "position": 1, "segments_info": []},
            '"annotations" wants "file_name" of type str',
        ),
        ({"key": "categories", "position": 0, "name": None}, r'"categories" wants "name" of type str'),
        (
            {"key": "categories", "position": 0, "name": "lion"},
            r"classes \['lion'\] are not in label set \"pets\"; map each under",
        ),
        (
            {"key": "images", "position": 0, "file_name": "gone.jpg"},
            r"1 of 3 images of .*i\.json are missing, e\.g\. .*images/gone\.jpg",
        ),
        (
            {"key": "images", "position": 0, "file_name": "deep/b.jpg"},
            r"deep/b\.jpg and .*deep/b\.png have the same id",
        ),
        ({"key": "images", "position": 0, "width": None}, r'image 7 wants "height" and "width"'),
        ({"key": "images", "position": 0, "id": True}, r'"images" wants "id" of type int'),
    ],
)
def test_what_is_wrong_with_a_file_is_named(
    tmp_path: Path, instances: dict[str, Any], change: dict[str, Any], told: str
) -> None:
    path = write(tmp_path / "i.json", changed(instances, **change))
    with pytest.raises(PoolError, match=f'^source "s".*{told}'):
        list_labelled([source(path)], NO_MIRRORS, PETS)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"images": [', '{"images": 7', '{"images" []}', '{"images": [{}{}]}', "{1: 2}"]
)
def test_what_is_no_coco_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "i.json"
    with pytest.raises(PoolError, match=r'^source "s": .*i\.json does not exist; check coco'):
        list_images([source(path)], NO_MIRRORS)
    path.write_text(text)
    with pytest.raises(PoolError, match=r'^source "s": .*i\.json is not a COCO annotation file: '):
        list_images([source(path)], NO_MIRRORS)


def test_a_damaged_polygon_names_file_image_and_annotation(tmp_path: Path, instances: dict[str, Any]) -> None:
    path = write(tmp_path / "i.json", changed(instances, "annotations", 2, segmentation=[[1, 2, 3]]))
    truth = labelled(source(path))["s/a"].truth
    with pytest.raises(ImageError, match=r"image 7 in .*i\.json, its annotation 2: wanted a polygon"):
        truth.read()
