"""Folders, lists, manifests and mirrors as sources of images."""

import hashlib
import json
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from mad_backend.core.labels import LabelClass, LabelSet
from mad_backend.core.records import PoolImage
from mad_backend.errors import ImageError, MissingRuntimeError, PoolError
from mad_backend.pool.sources import MIRROR_MANIFEST, LabelledImage, list_images, list_labelled
from mad_backend.pool.truths import Truth
from mad_backend.settings import SourceSettings

NO_MIRRORS = Path("/nowhere")
LABELS = LabelSet("pets", tuple(LabelClass(name, (0, 0, 0)) for name in ("background", "cat", "dog")))


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


def listed(*sources: SourceSettings, mirrors: Path = NO_MIRRORS) -> list[PoolImage]:
    return list_images(sources, mirrors)


def ids_of(*sources: SourceSettings) -> list[str]:
    return [image.image_id for image in listed(*sources)]


def from_manifest(path: Path, text: str, **keys: object) -> SourceSettings:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return SourceSettings.model_validate({"name": "s", "manifest": path} | keys)


def test_every_image_below_a_folder_is_found_in_order_and_other_files_are_not(tmp_path: Path) -> None:
    root = folder(tmp_path / "i", "b.JPG", "a.b.png", "deep/c.webp", "notes.txt")
    found = listed(source(root))
    assert [(i.image_id, i.path) for i in found] == [
        ("s/a.b", str(root / "a.b.png")),
        ("s/b", str(root / "b.JPG")),
        ("s/deep/c", str(root / "deep/c.webp")),
    ]
    assert all(i.etag for i in found)


def test_a_changed_file_has_another_etag_and_its_neighbours_have_not(tmp_path: Path) -> None:
    root = folder(tmp_path / "i", "a.png", "b.png")
    before = listed(source(root))
    (root / "a.png").write_bytes(b"other")
    after = listed(source(root))
    assert before[0].etag != after[0].etag
    assert before[1] == after[1]


def test_a_list_chooses_images_and_may_have_blank_lines_and_repeats(tmp_path: Path) -> None:
    root = folder(tmp_path / "i", "a.png", "b.png", "c.png")
    ids = tmp_path / "list.txt"
    ids.write_text("c\n\n a \nc\n")
    assert ids_of(source(root, ids=ids)) == ["s/a", "s/c"]


def test_the_same_name_in_two_sources_gives_two_images(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "1", "a.png"), folder(tmp_path / "2", "a.png")
    assert ids_of(source(one, "x"), source(two, "y")) == ["x/a", "y/a"]


def test_two_sources_of_one_name_may_not_share_an_id(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "1", "a.png"), folder(tmp_path / "2", "a.png")
    with pytest.raises(PoolError, match=r"\['s/a'\] occur in two sources"):
        listed(source(one), source(two))


def test_two_files_of_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"i/a\.jpg and .*i/a\.png have the same id"):
        listed(source(folder(tmp_path / "i", "a.png", "a.jpg")))


def test_a_name_that_can_be_no_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"a\\nb\.png' has a name that cannot be an image id"):
        listed(source(folder(tmp_path / "i", "a\nb.png")))


def test_a_missing_folder_an_empty_one_and_a_missing_list_are_three_errors(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match='source "s": there is no folder'):
        listed(source(tmp_path / "none"))
    with pytest.raises(PoolError, match='source "s": no image in'):
        listed(source(folder(tmp_path / "empty", "notes.txt")))
    with pytest.raises(PoolError, match="cannot read list"):
        listed(source(folder(tmp_path / "i", "a.png"), ids=tmp_path / "none.txt"))


def test_a_listed_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    ids = tmp_path / "list.txt"
    ids.write_text("a\nzebra\n")
    with pytest.raises(PoolError, match=r"1 of 2 ids of .*, e\.g\. zebra"):
        listed(source(folder(tmp_path / "i", "a.png"), ids=ids))


def test_a_list_chooses_from_a_store_too(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for name in "ab":
        memory.pipe_file(f"/pool/{name}.png", b"")
    ids = tmp_path / "list.txt"
    ids.write_text("b\n")
    chosen = SourceSettings(name="s", images="memory://pool", list=ids)
    assert [(i.image_id, i.path) for i in listed(chosen)] == [("s/b", "memory://pool/b.png")]
    memory.store.clear()


def test_labelled_images_come_with_their_masks(tmp_path: Path) -> None:
    root, masks = folder(tmp_path / "i", "a.jpg"), folder(tmp_path / "m", "a.png")
    found = list_labelled([source(root, masks=masks)], NO_MIRRORS, LABELS)
    assert [(f.image.image_id, f.truth) for f in found] == [("s/a", Truth(masks / "a.png"))]


def test_a_source_without_masks_and_a_missing_mask_are_named(tmp_path: Path) -> None:
    root = folder(tmp_path / "i", "a.jpg", "b.jpg")
    with pytest.raises(PoolError, match='source "s" needs masks'):
        list_labelled([source(root)], NO_MIRRORS, LABELS)
    with pytest.raises(PoolError, match=r"1 of 2 label maps are missing, e\.g\. .*/m/b\.png"):
        list_labelled([source(root, masks=folder(tmp_path / "m", "a.png"))], NO_MIRRORS, LABELS)


def test_a_manifest_names_images_beside_it_elsewhere_and_on_the_web(tmp_path: Path) -> None:
    folder(tmp_path, "m/i/a.png", "other/b.jpg")
    wanted = from_manifest(
        tmp_path / "m" / "list.txt",
        f"# photos\n\ni/a.png\n{tmp_path}/other/b.jpg\nhttps://host/c.JPG?width=9\n",
    )
    found = listed(wanted)
    assert [(i.image_id, i.path) for i in found] == [
        ("s/host/c", "https://host/c.JPG?width=9"),
        ("s/i/a", str(tmp_path / "m/i/a.png")),
        (f"s{tmp_path}/other/b", str(tmp_path / "other/b.jpg")),
    ]
    assert [bool(i.etag) for i in found] == [False, True, True]


def test_names_of_a_manifest_are_relative_to_images_where_that_is_given(tmp_path: Path) -> None:
    root = folder(tmp_path / "i", "a.png")
    wanted = from_manifest(tmp_path / "m" / "list.csv", "image\na.png\n", images=root)
    assert [(i.image_id, i.path) for i in listed(wanted)] == [("s/a", str(root / "a.png"))]
    elsewhere = from_manifest(tmp_path / "m" / "list.csv", "image\na.png\n", images="s3://bucket/photos/")
    assert [(i.image_id, i.path) for i in listed(elsewhere)] == [("s/a", "s3://bucket/photos/a.png")]


def test_masks_stand_in_the_manifest_or_lie_in_a_folder_by_id(tmp_path: Path) -> None:
    root = folder(tmp_path, "a.jpg", "m/a.png", "m/b.png")
    rows = [{"image": "a.jpg", "mask": "m/a.png"}, {"image": "https://host/b.jpg", "id": "b"}]
    text = "\n".join(map(json.dumps, rows))
    wanted = from_manifest(root / "list.jsonl", text.replace("m/a.png", "a.png"), masks=root / "m")
    found = list_labelled([wanted], NO_MIRRORS, LABELS)
    assert [(f.image.image_id, f.truth) for f in found] == [
        ("s/a", Truth(root / "m/a.png")),
        ("s/b", Truth(root / "m/b.png")),
    ]
    beside = from_manifest(root / "list.jsonl", json.dumps(rows[0]))
    (only,) = list_labelled([beside], NO_MIRRORS, LABELS)
    assert only == LabelledImage(listed(beside)[0], Truth(root / "m/a.png"))


def test_a_list_of_two_columns_names_images_and_masks(tmp_path: Path) -> None:
    root = folder(tmp_path, "i/a.jpg", "m/a.png", "i/old cat.jpg", "m/old cat.png")
    wanted = from_manifest(root / "list.txt", "i/a.jpg m/a.png\n")
    (only,) = list_labelled([wanted], NO_MIRRORS, LABELS)
    assert only == LabelledImage(
        PoolImage("s/i/a", str(root / "i/a.jpg"), only.image.etag), Truth(root / "m/a.png")
    )
    spaced = from_manifest(root / "list.txt", "i/old cat.jpg\n")
    assert ids_of(spaced) == ["s/i/old cat"]


@pytest.mark.parametrize(
    ("keys", "by_id"),
    [
        (
            {"own_classes": ["dog", "background", "wolf"], "classes": {"wolf": "dog"}},
            {0: 2, 1: 0, 2: 2, 255: 255},
        ),
        (
            {"own_classes": ["dog", "sky", "cat"], "classes": {"sky": "ignore"}},
            {0: 2, 1: 255, 2: 1, 255: 255},
        ),
        ({"own_classes": ["x", "y", "cat"], "classes": {"*": "background"}}, {0: 0, 1: 0, 2: 1, 255: 255}),
        ({"reduce_zero_label": True}, {0: 255, 1: 0, 2: 1, 3: 2, 255: 255}),
        ({"ignore_ids": [0, 9, 254]}, {0: 255, 1: 1, 2: 2, 9: 255, 254: 255, 255: 255}),
        ({"reduce_zero_label": True, "own_classes": ["cat", "dog"]}, {0: 255, 1: 1, 2: 2, 255: 255}),
    ],
)
def test_ids_of_masks_are_translated_as_settings_say(
    tmp_path: Path, keys: dict[str, object], by_id: dict[int, int]
) -> None:
    root = folder(tmp_path / "i", "a.jpg")
    Image.fromarray(np.array([list(by_id)], np.uint8)).save(folder(tmp_path / "m") / "a.png")
    wanted = SourceSettings.model_validate({"name": "s", "images": root, "masks": tmp_path / "m", **keys})
    (item,) = list_labelled([wanted], NO_MIRRORS, LABELS)
    assert item.truth.read().tolist() == [list(by_id.values())]
    adapter = TypeAdapter(Truth)  # how jobs are written
    assert adapter.validate_json(adapter.dump_json(item.truth)) == item.truth


def test_the_digest_of_a_plain_mask_is_that_of_its_file_and_depends_on_its_classes(tmp_path: Path) -> None:
    path = folder(tmp_path, "a.jpg", "m/a.png") / "m" / "a.png"
    path.write_bytes(b"any")
    given = {"name": "s", "images": tmp_path, "list": tmp_path / "l.txt", "masks": tmp_path / "m"}
    (tmp_path / "l.txt").write_text("a\n")
    truths = [
        list_labelled([SourceSettings.model_validate({**given, **keys})], NO_MIRRORS, LABELS)[0].truth
        for keys in ({}, {"ignore_ids": [1]}, {"ignore_ids": [2]})
    ]
    assert str(truths[0]) == str(path)
    assert truths[0].digest() == hashlib.sha256(b"any").hexdigest()
    before = [truth.digest() for truth in truths]
    path.write_bytes(b"other")
    assert len({*before, *(truth.digest() for truth in truths)}) == 6


def test_an_id_without_a_class_and_a_class_without_a_label_are_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "i", "a.jpg")
    Image.fromarray(np.array([[0, 7]], np.uint8)).save(folder(tmp_path / "m") / "a.png")
    given = {"name": "s", "images": root, "masks": tmp_path / "m", "own_classes": ["cat", "dog"]}
    (item,) = list_labelled([SourceSettings.model_validate(given)], NO_MIRRORS, LABELS)
    with pytest.raises(ImageError, match=r"m/a\.png has id 7, which stands for no class .* ignore_ids"):
        item.truth.read()
    strange = SourceSettings.model_validate({**given, "own_classes": ["cat", "lion", "wolf"]})
    with pytest.raises(
        PoolError,
        match=r"source \"s\": classes \['lion', 'wolf'\] are not in label set \"pets\"; map each under classes",
    ):
        list_labelled([strange], NO_MIRRORS, LABELS)
    misspelt = SourceSettings.model_validate({**given, "classes": {"cart": "cat"}})
    with pytest.raises(PoolError, match=r"has no class \['cart'\], named under classes; it has: cat, dog"):
        list_labelled([misspelt], NO_MIRRORS, LABELS)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"voc": "v", "masks": "m"}, "masks says nothing about a source of voc"),
        ({"voc": "v", "images": "i"}, "needs one origin: .*; got images and voc"),
        ({"images": "i", "split": "train"}, "split says nothing about a source of images"),
        ({"coco": "c.json"}, "coco needs images"),
        ({"cityscapes": "c"}, "cityscapes needs split"),
        ({"cityscapes": "c", "split": "../train"}, "split"),
        (
            {"coco": "c.json", "images": "i", "own_classes": ["a"]},
            "own_classes says nothing about a source of coco",
        ),
        ({"images": "i", "classes": {"a": "b"}}, "its PNGs have ids; name those in own_classes"),
        ({"mmseg": "a.py", "coco": "b.json", "images": "i"}, "got images and coco and mmseg"),
        ({"voc": "v", "list": "l"}, "list chooses from a folder; a voc names its images itself"),
    ],
)
def test_keys_that_say_nothing_about_an_origin_are_refused(keys: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        SourceSettings.model_validate({"name": "s", **keys})


def test_images_that_a_manifest_names_and_nobody_has_are_counted(tmp_path: Path) -> None:
    wanted = from_manifest(folder(tmp_path, "a.png") / "list.csv", "image\na.png\ngone.png\nlost.png\n")
    with pytest.raises(
        PoolError, match=r'"s": 2 of 3 images of .*list\.csv are missing, e\.g\. row 3: .*gone\.png'
    ):
        listed(wanted)


def test_two_rows_of_one_id_are_named(tmp_path: Path) -> None:
    wanted = from_manifest(
        folder(tmp_path, "a.png") / "list.csv", "image,id\na.png,x\nhttps://h/b?token=HUSH,x\n"
    )
    with pytest.raises(PoolError, match=r'rows 2 and 3 have the same id "x" \(.*a\.png, https://h/b\)'):
        listed(wanted)


@pytest.mark.parametrize("image_id", ["../a", "a//b", "/a", "a/", "a/./b", "a\\nb"])
def test_an_id_that_could_lead_out_of_a_folder_is_refused(tmp_path: Path, image_id: str) -> None:
    wanted = from_manifest(
        folder(tmp_path, "a.png") / "list.jsonl", f'{{"image": "a.png", "id": "{image_id}"}}'
    )
    with pytest.raises(PoolError, match=r"list\.jsonl, row 1: .* cannot be an image id"):
        listed(wanted)


def test_an_empty_manifest_and_a_missing_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r'source "s": no image in .*list\.txt'):
        listed(from_manifest(tmp_path / "list.txt", "# nothing\n"))
    with pytest.raises(PoolError, match=r'source "s": .*none\.csv does not exist'):
        listed(SourceSettings(name="s", manifest=tmp_path / "none.csv"))


def test_a_missing_package_is_told_before_any_image_is_read(tmp_path: Path) -> None:
    wanted = from_manifest(tmp_path / "list.txt", "gs://bucket/a.png\n")
    with pytest.raises(MissingRuntimeError, match=r"mad-segmentation\[gcs\]"):
        listed(wanted)


def test_a_label_studio_project_is_read_from_its_mirror(tmp_path: Path) -> None:
    wanted = SourceSettings.model_validate({"name": "ls", "label_studio": {"project": 12}})
    with pytest.raises(PoolError, match=r'"ls": Label Studio project 12 was not fetched yet; run `mad scan`'):
        listed(wanted, mirrors=tmp_path)
    mirror = folder(tmp_path / "ls", "3-abc.jpg")
    rows = [{"id": "3", "image": "3-abc.jpg"}, {"id": "4", "image": "https://host/x.jpg"}]
    (mirror / MIRROR_MANIFEST).write_text("\n".join(map(json.dumps, rows)))
    assert [(i.image_id, i.path) for i in listed(wanted, mirrors=tmp_path)] == [
        ("ls/3", str(mirror / "3-abc.jpg")),
        ("ls/4", "https://host/x.jpg"),
    ]
