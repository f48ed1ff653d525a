"""Datasets of mmsegmentation configurations as sources, against what mmsegmentation itself loads."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mad_backend.core.labels import VOID, LabelClass, LabelSet
from mad_backend.errors import PoolError
from mad_backend.models.mmseg_model import quietly
from mad_backend.pool.sources import LabelledImage, list_images, list_labelled
from mad_backend.settings import SourceSettings

NO_MIRRORS = Path("no-mirrors")
RNG = np.random.default_rng(6)


def labels_of(*names: str) -> LabelSet:
    return LabelSet("given", tuple(LabelClass(name, (0, 0, 0)) for name in names))


def pair(root: Path, image: str, mask: str, ids: list[int]) -> None:
    for path in (root / image, root / mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 12)).save(root / image)
    Image.fromarray(RNG.choice(np.array(ids, np.uint8), (12, 16))).save(root / mask)


def labelled(config: Path, labels: LabelSet, **keys: Any) -> dict[str, LabelledImage]:
    source = SourceSettings.model_validate({"name": "s", "mmseg": config, **keys})
    found = list_labelled([source], NO_MIRRORS, labels)
    assert [item.image for item in found] == list_images([source], NO_MIRRORS)
    return {item.image.image_id: item for item in found}


def as_mmseg_loads(dataset: dict[str, Any], n: int) -> np.ndarray[Any, Any]:
    """Item n of a dataset after LoadAnnotations."""
    with quietly():
        from mmseg.registry import DATASETS
        from mmseg.utils import register_all_modules

        register_all_modules(init_default_scope=True)
        built = DATASETS.build(
            {**dataset, "pipeline": [{"type": "LoadAnnotations", "imdecode_backend": "pillow"}]}
        )
        return np.asarray(built[n]["gt_seg_map"])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with a base, as mmsegmentation has them: a repeated dataset, two joined ones, and a VOC list."""
    data = tmp_path / "data"
    for name in ("a", "b", "deep/c"):
        pair(data / "ade", f"images/{name}.jpg", f"annotations/{name}.png", list(range(151)))
    for split, name in (("one", "x"), ("two", "y")):
        pair(data / "own", f"{split}/{name}_img.png", f"masks/{split}/{name}_gt.png", [0, 1, 2, 9, VOID])
    for name in ("v1", "v2"):
        pair(data / "voc", f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png", [*range(21), VOID])
    (data / "voc" / "list.txt").write_text("v2\n")
    (tmp_path / "base.py").write_text(
        """
train_dataloader = dict(batch_size=2, dataset=dict(type='RepeatDataset', times=3, dataset=dict(
    type='ADE20KDataset', data_root='data/ade',
    data_prefix=dict(img_path='images', seg_map_path='annotations'), pipeline=[dict(type='Nonsense')])))
"""
    )
    path = tmp_path / "config.py"
    path.write_text(
        """
_base_ = ['base.py']
_own = dict(type='BaseSegDataset', img_suffix='_img.png', seg_map_suffix='_gt.png', ignore_index=9,
    metainfo=dict(classes=('floor', 'wall', 'cat')))
val_dataloader = dict(dataset=dict(type='ConcatDataset', datasets=[
    dict(_own, data_root='data/own', data_prefix=dict(img_path='one', seg_map_path='masks/one')),
    dict(_own, data_prefix=dict(img_path='data/own/two', seg_map_path='data/own/masks/two'))]))
test_dataloader = dict(dataset=dict(type='PascalVOCDataset', data_root='data/voc', ann_file='list.txt',
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
    metainfo=dict(classes=('background', 'dog', 'cat'))))
bare = dict(dataset=dict(type='BaseSegDataset', data_root='data/ade', data_prefix=dict(img_path='images')))
broken = dict(type='NoSuchDataset', data_root='data')
number = 7
"""
    )
    return path


def test_zero_is_reduced_and_all_150_classes_of_ade_are_mapped_by_name(config: Path, tmp_path: Path) -> None:
    labels = labels_of("rest", "sky", "person")
    found = labelled(config, labels, images=tmp_path, classes={"*": "rest"})
    assert list(found) == ["s/a", "s/b", "s/deep/c"]
    assert found["s/a"].image.path == str(tmp_path / "data/ade/images/a.jpg")
    ade = {
        "type": "ADE20KDataset",
        "data_root": str(tmp_path / "data/ade"),
        "data_prefix": {"img_path": "images", "seg_map_path": "annotations"},
    }
    sky, person = 2, 12  # their places in ADE20KDataset.METAINFO
    for n, item in enumerate(found.values()):
        theirs = as_mmseg_loads(ade, n)
        wanted = np.where(theirs == VOID, VOID, np.where(theirs == sky, 1, np.where(theirs == person, 2, 0)))
        np.testing.assert_array_equal(item.truth.read(), wanted)


def test_joined_datasets_with_suffixes_and_an_ignored_index_are_read(config: Path, tmp_path: Path) -> None:
    labels = labels_of("ground", "cat", "wall")
    found = labelled(config, labels, images=tmp_path, split="val", classes={"floor": "ground"})
    assert list(found) == ["s/x", "s/y"]
    for part, item in zip(("one/x", "two/y"), found.values(), strict=True):
        own = np.asarray(Image.open(tmp_path / f"data/own/masks/{part}_gt.png"))
        table = np.full(256, VOID)
        table[:3] = 0, 2, 1
        np.testing.assert_array_equal(item.truth.read(), table[own])


def test_classes_that_the_configuration_leaves_out_are_void_as_in_its_own_training(
    config: Path, tmp_path: Path
) -> None:
    found = labelled(config, labels_of("background", "dog", "cat"), images=tmp_path, split="test")
    assert list(found) == ["s/v2"]
    voc = {
        "type": "PascalVOCDataset",
        "data_root": str(tmp_path / "data/voc"),
        "ann_file": "list.txt",
        "data_prefix": {"img_path": "JPEGImages", "seg_map_path": "SegmentationClass"},
        "metainfo": {"classes": ("background", "dog", "cat")},
    }
    np.testing.assert_array_equal(found["s/v2"].truth.read(), as_mmseg_loads(voc, 0))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"split": "extra"}, r"config\.py has no extra; wanted split train, val or test"),
        ({"split": "train_dataloader.batch_size.x"}, r"has no train_dataloader\.batch_size\.x"),
        ({"split": "number"}, "number is no dataset: 7"),
        ({"split": "val_dataloader.dataset.datasets"}, "is no dataset"),
        ({"split": "broken"}, "mmsegmentation cannot read this dataset: .*NoSuchDataset"),
        ({"images": None}, r'data_root "data/ade" is relative; give the source images'),
        ({"split": "bare"}, "its dataset names no label maps; give data_prefix a seg_map_path"),
        ({"images": "s3://bucket"}, "must be a folder of this machine"),
        ({}, r"classes \['wall', 'building'.* are not in label set .* map each under classes"),
    ],
)
def test_what_cannot_be_read_is_named(config: Path, tmp_path: Path, keys: dict[str, Any], told: str) -> None:
    with pytest.raises(PoolError, match=f'^source "s".*{told}'):
        labelled(config, labels_of("a", "b"), **({"images": tmp_path} | keys))


def test_a_missing_configuration_a_faulty_one_and_a_missing_image_are_named(
    config: Path, tmp_path: Path
) -> None:
    labels = labels_of("background", "dog", "cat")
    with pytest.raises(PoolError, match=r'source "s": .*none\.py does not exist; check mmseg'):
        labelled(tmp_path / "none.py", labels)
    (tmp_path / "faulty.py").write_text("a = (")
    with pytest.raises(PoolError, match=r'source "s": mmsegmentation configuration .*faulty\.py'):
        labelled(tmp_path / "faulty.py", labels)
    (tmp_path / "data/voc/list.txt").write_text("v2\nv3\n")
    with pytest.raises(PoolError, match=r'"s": 1 of 2 images of .*config\.py are missing, e\.g\. .*v3\.jpg'):
        labelled(config, labels, images=tmp_path, split="test")
