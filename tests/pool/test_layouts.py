"""PASCAL VOC's and Cityscapes' folders as sources, against label maps that the test itself made."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from mad_backend.core.labels import VOID, LabelClass, LabelMap, LabelSet
from mad_backend.errors import PoolError
from mad_backend.pool.layouts import CITYSCAPES_CLASSES, CITYSCAPES_TRAINED, VOC_CLASSES
from mad_backend.pool.reader import PoolReader
from mad_backend.pool.sources import LabelledImage, list_images, list_labelled
from mad_backend.settings import SourceSettings
from mad_backend.settings_file import load_settings

SHARED_VOC = Path(__file__).parents[3] / "shared" / "data" / "voc"
NO_MIRRORS = Path("no-mirrors")
RNG = np.random.default_rng(5)


def labels_of(*names: str, has_background: bool = True) -> LabelSet:
    return LabelSet("given", tuple(LabelClass(name, (0, 0, 0)) for name in names), has_background)


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 12)).save(path)


def drawn(path: Path, ids: Sequence[int]) -> LabelMap:
    label_map = RNG.choice(np.array(ids, np.uint8), (12, 16))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(label_map).save(path)
    return label_map


def labelled(labels: LabelSet, **keys: Any) -> dict[str, LabelledImage]:
    source = SourceSettings.model_validate({"name": "s", **keys})
    found = list_labelled([source], NO_MIRRORS, labels)
    assert [item.image for item in found] == list_images([source], NO_MIRRORS)
    return {item.image.image_id: item for item in found}


def by_table(label_map: NDArray[np.uint8], table: dict[int, int]) -> list[list[int]]:
    return [[table.get(own, VOID) for own in row] for row in label_map.tolist()]


@pytest.fixture
def voc(tmp_path: Path) -> tuple[Path, dict[str, LabelMap]]:
    root = tmp_path / "VOC2012"
    for name in ("a", "b", "c"):
        photo(root / "JPEGImages" / f"{name}.jpg")
    maps = {
        "a": drawn(root / "SegmentationClass" / "a.png", [*range(21), VOID]),
        "b": drawn(root / "SegmentationClassAug" / "b.png", [*range(21), VOID]),
    }
    drawn(root / "SegmentationClassAug" / "a.png", [3])
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train_aug.txt").write_text("b\na\n")
    (lists / "train.txt").write_text("a\n\n")
    (lists / "wrong.txt").write_text("a\nzebra\n../../a\n")
    return root, maps


def test_voc_reads_the_lists_images_and_prefers_vocs_own_maps_to_the_augmented(
    voc: tuple[Path, dict[str, LabelMap]],
) -> None:
    root, maps = voc
    found = labelled(labels_of(*VOC_CLASSES), voc=root, split="train_aug")
    assert list(found) == ["s/a", "s/b"]
    for name, label_map in maps.items():
        np.testing.assert_array_equal(found[f"s/{name}"].truth.read(), label_map)
    assert found["s/a"].image.path == str(root / "JPEGImages" / "a.jpg")
    assert list(labelled(labels_of(*VOC_CLASSES), voc=root, split="train")) == ["s/a"]


def test_vocs_names_are_mapped_where_classes_are_given(voc: tuple[Path, dict[str, LabelMap]]) -> None:
    root, maps = voc
    classes = {"cat": "animal", "dog": "animal", "tvmonitor": "ignore", "*": "background"}
    found = labelled(labels_of("background", "person", "animal"), voc=root, split="train", classes=classes)
    table = dict.fromkeys(range(20), 0) | {8: 2, 12: 2, 15: 1}
    assert found["s/a"].truth.read().tolist() == by_table(maps["a"], table)


def test_of_a_voc_folder_without_split_every_image_is_of_the_pool(
    voc: tuple[Path, dict[str, LabelMap]],
) -> None:
    source = SourceSettings(name="d", voc=voc[0])
    images = list_images([source], NO_MIRRORS)
    assert [i.image_id for i in images] == ["d/a", "d/b", "d/c"]
    assert PoolReader.of([source]).rgb(images[0]).shape == (12, 16, 3)
    with pytest.raises(
        PoolError, match=r'"d": 1 of 3 label maps are missing, e\.g\. .*SegmentationClass/c\.png'
    ):
        list_labelled([source], NO_MIRRORS, labels_of(*VOC_CLASSES))


def test_what_a_voc_folder_lacks_is_named(voc: tuple[Path, dict[str, LabelMap]], tmp_path: Path) -> None:
    labels = labels_of(*VOC_CLASSES)
    with pytest.raises(PoolError, match=r'source "s": .* PASCAL VOC: it has no folder JPEGImages'):
        labelled(labels, voc=tmp_path, split="train")
    with pytest.raises(PoolError, match=r'source "s": cannot read list .*Segmentation/val\.txt'):
        labelled(labels, voc=voc[0], split="val")
    with pytest.raises(
        PoolError, match=r"2 of 3 ids of .*wrong\.txt have no image in .*JPEGImages, e\.g\. zebra"
    ):
        labelled(labels, voc=voc[0], split="wrong")


@pytest.mark.skipif(not SHARED_VOC.is_dir(), reason="shared/data/voc is not on this machine")
def test_the_real_voc_images_are_read_as_they_are_drawn() -> None:
    found = labelled(labels_of(*VOC_CLASSES), voc=SHARED_VOC, split="fresh_s0")
    ids = (SHARED_VOC / "ImageSets" / "Segmentation" / "fresh_s0.txt").read_text().split()
    assert sorted(found) == sorted(f"s/{i}" for i in ids)
    for item in list(found.values())[:5]:
        with Image.open(item.image.path) as image, Image.open(item.truth.path) as mask:
            wanted = np.array(mask)
            assert image.size == mask.size
        np.testing.assert_array_equal(item.truth.read(), wanted)
        assert set(np.unique(wanted)) <= {*range(21), VOID}


@pytest.fixture
def cityscapes(tmp_path: Path) -> tuple[Path, LabelMap, LabelMap]:
    """One image of Ulm with raw ids and training ids, one of Bonn with training ids alone."""
    root = tmp_path / "cityscapes"
    for stem in ("ulm/ulm_000000_000019", "bonn/bonn_000001_000019"):
        photo(root / "leftImg8bit" / "train" / f"{stem}_leftImg8bit.png")
    gt = root / "gtFine" / "train"
    raw = drawn(gt / "ulm" / "ulm_000000_000019_gtFine_labelIds.png", range(34))
    drawn(gt / "ulm" / "ulm_000000_000019_gtFine_labelTrainIds.png", [0])
    Image.new("RGBA", (16, 12)).save(gt / "ulm" / "ulm_000000_000019_gtFine_color.png")
    trained = drawn(gt / "bonn" / "bonn_000001_000019_gtFine_labelTrainIds.png", [*range(19), VOID])
    return root, raw, trained


TRAIN_IDS = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15,
    31: 16, 32: 17, 33: 18,
}  # fmt: skip
"""id -> trainId, as cityscapesscripts has them."""


def test_raw_and_training_ids_of_cityscapes_become_the_same_classes(
    cityscapes: tuple[Path, LabelMap, LabelMap],
) -> None:
    root, raw, trained = cityscapes
    found = labelled(labels_of(*CITYSCAPES_TRAINED, has_background=False), cityscapes=root, split="train")
    assert list(found) == ["s/bonn/bonn_000001_000019", "s/ulm/ulm_000000_000019"]
    assert found["s/ulm/ulm_000000_000019"].truth.read().tolist() == by_table(raw, TRAIN_IDS)
    np.testing.assert_array_equal(found["s/bonn/bonn_000001_000019"].truth.read(), trained)


def test_classes_that_cityscapes_ignores_are_void_unless_they_are_wanted(
    cityscapes: tuple[Path, LabelMap, LabelMap],
) -> None:
    root, raw, trained = cityscapes
    classes = {"bus": "vehicle", "car": "vehicle", "caravan": "vehicle", "sky": "ignore", "*": "rest"}
    labels = labels_of("rest", "vehicle", "person", "bridge")
    found = labelled(labels, cityscapes=root, split="train", classes=classes)
    wanted = dict.fromkeys(TRAIN_IDS, 0) | {23: VOID, 24: 2, 26: 1, 28: 1, 29: 1, 15: 3}
    assert found["s/ulm/ulm_000000_000019"].truth.read().tolist() == by_table(raw, wanted)
    wanted = dict.fromkeys(range(19), 0) | {10: VOID, 11: 2, 13: 1, 15: 1}
    assert found["s/bonn/bonn_000001_000019"].truth.read().tolist() == by_table(trained, wanted)


def test_what_cityscapes_lacks_is_named(cityscapes: tuple[Path, LabelMap, LabelMap]) -> None:
    root = cityscapes[0]
    labels = labels_of(*CITYSCAPES_TRAINED)
    with pytest.raises(PoolError, match=r'"s": .* Cityscapes: it has no folder leftImg8bit/val'):
        labelled(labels, cityscapes=root, split="val")
    with pytest.raises(
        PoolError, match=r"'train', 'motorcycle'.* are not in label set \"given\"; map each under classes"
    ):
        labelled(labels_of("road", "bicycle"), cityscapes=root, split="train")
    (root / "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png").unlink()
    (root / "gtFine/train/ulm/ulm_000000_000019_gtFine_labelTrainIds.png").unlink()
    with pytest.raises(
        PoolError, match=r"1 of 2 label maps are missing, e\.g\. .*ulm_000000_000019_gtFine_labelIds"
    ):
        labelled(labels, cityscapes=root, split="train")
    (root / "gtFine").rename(root / "gtCoarse")
    with pytest.raises(PoolError, match=r'"s": .* Cityscapes: it has no folder gtFine/train'):
        labelled(labels, cityscapes=root, split="train")


def test_the_names_of_cityscapes_are_in_the_order_of_its_ids() -> None:
    assert {
        i: CITYSCAPES_TRAINED.index(n) for i, n in enumerate(CITYSCAPES_CLASSES) if n in CITYSCAPES_TRAINED
    } == (TRAIN_IDS)


def test_relative_paths_of_layouts_are_relative_to_the_settings_file(tmp_path: Path) -> None:
    sources = [
        {"name": "v", "voc": "data/voc", "split": "train"},
        {"name": "c", "coco": "data/c.json", "images": "data/c", "classes": {"voc": "coco"}},
        {"name": "m", "mmseg": "m.py"},
        {"name": "y", "cityscapes": "y", "split": "val"},
    ]
    model = {"kind": "folder", "path": "p"}
    models = {"name": "m", "target": model, "competing": {"voc": model}}
    given = {
        "workspace": "w",
        "label_set": "l",
        "pool": sources,
        "s0": sources,
        "t0": sources,
        "models": models,
    }
    (tmp_path / "mad.yaml").write_text(yaml.safe_dump(given))
    voc, coco, mmseg, city = load_settings(tmp_path / "mad.yaml").s0
    assert (voc.voc, coco.coco, coco.images) == (
        tmp_path / "data/voc",
        tmp_path / "data/c.json",
        tmp_path / "data/c",
    )
    assert (mmseg.mmseg, city.cityscapes) == (tmp_path / "m.py", tmp_path / "y")
    assert coco.classes == {"voc": "coco"}
