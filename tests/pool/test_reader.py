"""One reader for all sources: what it hands to stores, what it asks, what it copies."""

from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from mad_backend.core.grid import Grid
from mad_backend.core.records import PoolImage
from mad_backend.errors import PoolError
from mad_backend.pool.reader import PoolReader
from mad_backend.settings import SourceSettings


def source(name: str, **options: str) -> SourceSettings:
    return SourceSettings.model_validate({"name": name, "images": "s3://bucket", "storage_options": options})


def test_each_source_has_its_own_options() -> None:
    reader = PoolReader.of(
        [source("a", endpoint_url="http://a"), source("b", endpoint_url="http://b"), source("c")]
    )
    assert reader == PoolReader({"a": {"endpoint_url": "http://a"}, "b": {"endpoint_url": "http://b"}})


def test_two_sources_of_one_name_must_agree_on_options() -> None:
    assert PoolReader.of([source("a", region="x"), source("a", region="x")]).options == {"a": {"region": "x"}}
    with pytest.raises(PoolError, match='two sources are called "a" and have different storage_options'):
        PoolReader.of([source("a", region="x"), source("a")])


def test_pixels_size_and_frame_of_an_image_agree_wherever_it_lies(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/pool/a.png", (tmp_path / "a.png").read_bytes())
    reader, grid = PoolReader(), Grid(20)
    for image in (PoolImage("s/a", str(tmp_path / "a.png")), PoolImage("s/a", "memory://pool/a.png")):
        assert (reader.rgb(image) == pixels).all()
        assert reader.size(image) == (30, 50)
        frame = reader.frame(image, grid)
        assert (frame.rgb == grid.image(pixels)).all()
        assert (frame.image_id, frame.size, frame.address) == ("s/a", (30, 50), image.path)
    memory.store.clear()


def test_only_images_without_an_etag_are_asked_about(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"abc")
    known = PoolImage("s/known", "memory://none/known.png", "v1")
    here, gone = PoolImage("s/a", str(tmp_path / "a.png")), PoolImage("s/gone", "memory://none/gone.png")
    found = PoolReader().with_etags([known, here, gone])
    assert [i.image_id for i in found] == ["s/known", "s/a", "s/gone"]
    assert found[0] is known
    assert found[1].etag.startswith("3-")
    assert found[2].etag == ""


def test_a_file_of_this_machine_is_used_where_it_lies(tmp_path: Path) -> None:
    image = PoolImage("s/a", str(tmp_path / "a.png"))
    assert PoolReader().local_file(image, tmp_path / "copies") == tmp_path / "a.png"
    assert not (tmp_path / "copies").exists()
