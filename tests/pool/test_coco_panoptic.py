"""COCO panoptic segments as sources."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mad_backend.core.labels import VOID, LabelMap
from mad_backend.errors import ImageError, PoolError
from tests.pool.coco_files import (
    CATEGORIES,
    SIZE,
    as_other_processes_get_it,
    box,
    images,
    instance,
    labelled,
    source,
    write,
)


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
