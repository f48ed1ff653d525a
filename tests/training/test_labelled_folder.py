"""Label maps in a folder find their images, and what is wrong with them is said before anything is learnt."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mad_backend.core.labels import LabelClass, LabelSet
from mad_backend.core.records import PoolImage
from mad_backend.errors import ImageError, PoolError, TrainingError
from mad_backend.pool.truths import Truth
from training.finetuning.samples import Sample
from training.labelled_folder import Drawn, check_maps, drawn_maps, images_in, matched

LABELS = LabelSet("pets", (LabelClass("cat", (1, 0, 0)), LabelClass("dog", (0, 1, 0))), has_background=False)


def drawn(*names: str) -> list[Drawn]:
    return [Drawn(name, Truth(Path(f"/masks/{name}.png"))) for name in names]


def pool(*image_ids: str) -> list[PoolImage]:
    return [PoolImage(image_id, f"/images/{image_id}.jpg") for image_id in image_ids]


def sample(folder: Path, name: str, ids: list[list[int]], size: tuple[int, int] = (2, 2)) -> Sample:
    image, mask = folder / f"{name}.jpg", folder / f"{name}.png"
    Image.new("RGB", size).save(image)
    Image.fromarray(np.array(ids, np.uint8)).save(mask)
    return Sample(name, image, Truth(mask))


def test_a_map_belongs_to_the_image_of_its_whole_name_or_of_its_last_parts() -> None:
    images = pool("web/a", "web/day/b", "c", "web/c", "other")
    pairs = matched(drawn("a", "day/b", "c", "web/c"), images, "the pool")
    assert [image.image_id for image, _ in pairs] == ["web/a", "web/day/b", "c", "web/c"]


def test_a_map_of_two_images_is_refused() -> None:
    with pytest.raises(
        PoolError, match=r'a\.png fits one/a and two/a of the pool; call it "a" with their folder'
    ):
        matched(drawn("a"), pool("two/a", "one/a"), "the pool")


def test_maps_without_an_image_are_named() -> None:
    with pytest.raises(PoolError, match="2 of 3 label maps have no image of the same name in photos: b, c"):
        matched(drawn("a", "b", "c"), pool("a", "x/cc"), "photos")


def test_maps_and_images_may_lie_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "day").mkdir()
    for name in ("a", "day/b"):
        sample(tmp_path, name, [[0, 1], [1, 255]])
    pairs = matched(drawn_maps(tmp_path), images_in(tmp_path), "there")
    assert [(Path(image.path).name, d.name) for image, d in pairs] == [("a.jpg", "a"), ("b.jpg", "day/b")]


def test_a_folder_that_is_missing_or_without_maps_is_said(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"--masks: there is no folder .*/gone"):
        drawn_maps(tmp_path / "gone")
    with pytest.raises(PoolError, match=r"--images: there is no folder .*/gone"):
        images_in(tmp_path / "gone")
    with pytest.raises(PoolError, match="--masks: there is no PNG in "):
        drawn_maps(tmp_path)


def test_a_map_of_another_size_than_its_image_is_refused(tmp_path: Path) -> None:
    small = sample(tmp_path, "a", [[0, 1], [1, 255]], size=(3, 2))
    with pytest.raises(TrainingError, match=r"a\.png is 2 x 2 pixels, its image .*a\.jpg 3 x 2; draw it at"):
        check_maps([small], LABELS)


def test_maps_without_a_class_are_refused_and_single_strange_ids_are_told(tmp_path: Path) -> None:
    good, partly = sample(tmp_path, "a", [[0, 1], [1, 255]]), sample(tmp_path, "b", [[0, 7], [9, 255]])
    assert check_maps([good, partly], LABELS) == {"b": [7, 9]}
    foreign = sample(tmp_path, "c", [[34, 35], [35, 255]])
    with pytest.raises(
        TrainingError, match=r'1 label maps have .* wanted ids 0\.\.1 of label set "pets"'
    ) as told:
        check_maps([foreign], LABELS)
    assert str(told.value).endswith("got 34, 35, 255")


def test_a_picture_is_no_label_map(tmp_path: Path) -> None:
    item = sample(tmp_path, "a", [[0, 1], [1, 255]])
    Image.new("RGB", (2, 2)).save(item.truth.path)
    with pytest.raises(ImageError, match="has mode RGB; wanted an index PNG"):
        check_maps([item], LABELS)
