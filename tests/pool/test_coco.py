"""COCO instances and panoptic segments as sources."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from mad_backend.core.labels import VOID, LabelClass, LabelMap, LabelSet
from mad_backend.errors import ImageError, PoolError
from mad_backend.pool.coco_file import read_coco
from mad_backend.pool.sources import LabelledImage, list_images, list_labelled
from mad_backend.pool.truths import Truth
from mad_backend.settings import SourceSettings

NO_MIRRORS = Path("no-mirrors")
SIZE = 16
PETS = LabelSet("pets", tuple(LabelClass(name, (0, 0, 0)) for name in ("background", "cat", "dog")))
STREET = LabelSet("street", PETS.classes[1:], has_background=False)
CATEGORIES = [
    {"id": 17, "name": "cat"},
    {"id": 3, "name": "wölfchen \u732b", "supercategory": "annotations"},
    {"id": 90, "name": "tree"},
]
CLASSES = {"wölfchen \u732b": "dog", "tree": "ignore"}


def box(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def instance(image: int, category: int, segmentation: Any, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": 0, **more}


def crowd_of(mask: np.ndarray[Any, Any]) -> dict[str, Any]:
    flat = mask.T.reshape(-1).astype(int)
    edges = np.flatnonzero(np.diff(flat, prepend=0, append=0))
    runs = np.diff([0, *edges.tolist(), flat.size]).tolist()
    return {"size": list(mask.shape), "counts": runs}


def images(folder: Path, *names: str) -> list[dict[str, Any]]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (SIZE, SIZE)).save(folder / name)
    return [
        {"id": 7 * n, "file_name": name, "height": SIZE, "width": SIZE} for n, name in enumerate(names, 1)
    ]


def write(path: Path, content: dict[str, Any], **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, **how), encoding="utf-8")
    return path


def source(path: Path, **keys: Any) -> SourceSettings:
    given = {"name": "s", "coco": path, "images": path.parent / "images", "classes": CLASSES}
    return SourceSettings.model_validate(given | keys)


def labelled(wanted: SourceSettings, labels: LabelSet = PETS) -> dict[str, LabelledImage]:
    found = list_labelled([wanted], NO_MIRRORS, labels)
    assert [item.image for item in found] == list_images([wanted], NO_MIRRORS)
    return {item.image.image_id: item for item in found}


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


def as_other_processes_get_it(truth: Truth) -> Truth:
    adapter = TypeAdapter(Truth)
    again = adapter.validate_json(adapter.dump_json(truth))
    assert again == truth == pickle.loads(pickle.dumps(truth))
    assert hash(again) == hash(truth)
    return again


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


def panoptic_png(path: Path, ids: LabelMap) -> None:
    """Colours by the format's rule: R + 256 G + 65536 B."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2)
    Image.fromarray(rgb.astype(np.uint8)).save(path)


def segments(image: int, name: str, *found: tuple[int, int, int]) -> dict[str, Any]:
    told = [{"id": i, "category_id": c, "iscrowd": crowd, "area": 1} for i, c, crowd in found]
    return {"image_id": image, "file_name": name, "segments_info": told}


@pytest.fixture
def panoptic(tmp_path: Path) -> tuple[Path, dict[int, int]]:
    """The file, and what the colours of image a shall become."""
    ids = np.random.default_rng(1).choice([0, 5, 300, 70_000, 9_000_001, 16_777_215], (SIZE, SIZE))
    panoptic_png(tmp_path / "p" / "a.png", ids)
    np.save(tmp_path / "ids.npy", ids)
    content = {
        "images": images(tmp_path / "images", "a.jpg"),
        "annotations": [
            segments(
                7, "a.png", (9_000_001, 17, 0), (5, 3, 0), (300, 90, 0), (70_000, 17, 1), (16_777_215, 17, 0)
            )
        ],
        "categories": list(CATEGORIES),
    }
    return write(tmp_path / "p.json", content), {
        0: VOID,
        5: 2,
        300: VOID,
        70_000: VOID,
        9_000_001: 1,
        16_777_215: 1,
    }


def test_colours_of_panoptic_maps_become_classes(
    tmp_path: Path, panoptic: tuple[Path, dict[int, int]]
) -> None:
    path, table = panoptic
    truth = labelled(source(path))["s/a"].truth
    wanted = [[table[i] for i in row] for row in np.load(tmp_path / "ids.npy").tolist()]
    assert truth.read().tolist() == wanted
    assert as_other_processes_get_it(truth).read().tolist() == wanted
    assert truth.path == tmp_path / "p" / "a.png"
    before = truth.digest()
    (tmp_path / "p").rename(tmp_path / "elsewhere")
    moved = labelled(source(path, masks=tmp_path / "elsewhere"))["s/a"].truth
    assert moved.digest() == before
    assert moved.read().tolist() == wanted


def test_a_colour_that_the_file_does_not_have_and_a_missing_png_are_named(
    tmp_path: Path, panoptic: tuple[Path, dict[int, int]]
) -> None:
    truth = labelled(source(panoptic[0]))["s/a"].truth
    before = truth.digest()
    panoptic_png(tmp_path / "p" / "a.png", np.full((SIZE, SIZE), 301))
    assert truth.digest() != before
    with pytest.raises(ImageError, match=r"p/a\.png has segment 301, which its JSON file does not have"):
        truth.read()
    (tmp_path / "p" / "a.png").unlink()
    with pytest.raises(PoolError, match=r'source "s": 1 of 1 label maps are missing, e\.g\. .*p/a\.png'):
        labelled(source(panoptic[0]))


def test_panoptic_files_that_name_too_little_or_too_much_are_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "images": images(tmp_path / "images", "a.jpg", "b.jpg"),
        "categories": list(CATEGORIES),
    }
    content["annotations"] = [segments(7, "a.png", (1, 17, 0))]
    with pytest.raises(PoolError, match=r"1 of 2 images of .*p\.json have no annotation, e\.g\. b\.jpg"):
        labelled(source(write(tmp_path / "p.json", content)))
    content["annotations"].append(segments(14, "../b.png", (1, 17, 0)))
    with pytest.raises(PoolError, match=r"a panoptic label map: file_name '\.\./b\.png' leads out"):
        labelled(source(write(tmp_path / "p.json", content)))
    content["annotations"].append(instance(7, 17, box(0, 0, 1, 1)))
    with pytest.raises(PoolError, match="instances and of panoptic segments; wanted one kind"):
        labelled(source(write(tmp_path / "p.json", content)))
    content["annotations"] = content["annotations"][2:]
    with pytest.raises(PoolError, match=r"masks are for panoptic segments, and .*p\.json has instances"):
        labelled(source(write(tmp_path / "p.json", content), masks=tmp_path))
