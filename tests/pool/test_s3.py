"""A bucket as pool, on moto's S3 server."""

import json
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from mad_backend.core.records import PoolImage
from mad_backend.errors import ImageError, PoolError
from mad_backend.pool.reader import PoolReader
from mad_backend.pool.sources import list_images
from mad_backend.settings import SourceSettings
from tests.pool.conftest import S3


def source(s3: S3, **keys: object) -> SourceSettings:
    return SourceSettings.model_validate({"name": "s", "storage_options": {"endpoint_url": s3.url}} | keys)


def test_a_prefix_is_listed_with_checksums_and_read(s3: S3, tmp_path: Path) -> None:
    for key in ("web/a.png", "web/deep/b.JPG", "web/odd::name+ä 1.png", "web/notes.txt", "web2/c.png"):
        s3.put(key, key.encode())
    wanted = source(s3, images="s3://photos/web")
    found = list_images([wanted], tmp_path)
    assert [(i.image_id, i.path) for i in found] == [
        ("s/a", "s3://photos/web/a.png"),
        ("s/deep/b", "s3://photos/web/deep/b.JPG"),
        ("s/odd::name+ä 1", "s3://photos/web/odd::name+ä 1.png"),
    ]
    reader = PoolReader.of([wanted])
    assert [reader.read(i).decode() for i in found] == [i.path.removeprefix("s3://photos/") for i in found]
    assert list_images([source(s3, images="s3://photos/web/")], tmp_path) == found
    assert len(list_images([source(s3, images="s3://photos")], tmp_path)) == 4


def test_new_deleted_and_changed_objects_are_noticed_by_the_next_listing(s3: S3, tmp_path: Path) -> None:
    wanted = source(s3, images="s3://photos/web")
    for name in "abc":
        s3.put(f"web/{name}.png", b"one")
    before = {i.image_id: i.etag for i in list_images([wanted], tmp_path)}
    s3.put("web/a.png", b"two")
    s3.put("web/b.png", b"one")
    s3.client.delete_object(Bucket="photos", Key="web/c.png")
    s3.put("web/d.png", b"one")
    after = {i.image_id: i.etag for i in list_images([wanted], tmp_path)}
    assert set(after) == {"s/a", "s/b", "s/d"}
    assert after["s/a"] != before["s/a"]
    assert after["s/b"] == before["s/b"] != ""


def test_a_manifest_in_a_bucket_names_images_beside_it(s3: S3, tmp_path: Path) -> None:
    s3.put("web/a.png", b"a")
    s3.put("other/b.png", b"b")
    rows = [{"image": "a.png"}, {"image": "s3://photos/other/b.png", "id": "bee"}]
    s3.put("web/list.jsonl", "\n".join(map(json.dumps, rows)).encode())
    wanted = source(s3, manifest="s3://photos/web/list.jsonl")
    found = list_images([wanted], tmp_path)
    assert found == [PoolImage("s/a", "s3://photos/web/a.png"), PoolImage("s/bee", "s3://photos/other/b.png")]
    reader = PoolReader.of([wanted])
    assert [reader.read(i) for i in found] == [b"a", b"b"]


def test_etags_of_a_manifests_images_are_asked_for_at_once_and_agree_with_the_listing(
    s3: S3, tmp_path: Path
) -> None:
    for n in range(40):
        s3.put(f"web/{n:02d}.png", f"{n}".encode())
    s3.put("list.txt", "\n".join(f"web/{n:02d}.png" for n in range(41)).encode())
    listed = list_images([source(s3, images="s3://photos/web")], tmp_path)
    wanted = source(s3, manifest="s3://photos/list.txt")
    found = PoolReader.of([wanted]).with_etags(list_images([wanted], tmp_path))
    assert [i.etag for i in found] == [*(i.etag for i in listed), ""]


def test_what_is_not_in_the_bucket_is_named(s3: S3, tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r'source "s": s3://gone/web does not exist'):
        list_images([source(s3, images="s3://gone/web")], tmp_path)
    with pytest.raises(PoolError, match=r'source "s": no image in s3://photos/web'):
        list_images([source(s3, images="s3://photos/web")], tmp_path)
    with pytest.raises(PoolError, match=r'source "s": s3://photos/list\.csv does not exist'):
        list_images([source(s3, manifest="s3://photos/list.csv")], tmp_path)
    reader = PoolReader.of([source(s3, images="s3://photos")])
    with pytest.raises(ImageError, match=r"image s3://photos/gone\.png does not exist"):
        reader.read(PoolImage("s/gone", "s3://photos/gone.png"))
    s3.put("empty.png", b"")
    with pytest.raises(ImageError, match=r"image s3://photos/empty\.png (cannot be read|is not in a format)"):
        reader.rgb(PoolImage("s/empty", "s3://photos/empty.png"))


def test_a_store_that_does_not_answer_stops_the_work_instead_of_failing_each_image(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    nobody = SourceSettings(
        name="s", images="s3://photos", storage_options={"endpoint_url": "http://127.0.0.1:1"}
    )
    with pytest.raises(PoolError, match=r'source "s": s3://photos cannot be reached') as caught:
        list_images([nobody], tmp_path)
    assert "HUSH" not in str(caught.value)
    with pytest.raises(PoolError, match=r"s3://photos/a\.png cannot be reached.*AWS_ACCESS_KEY_ID"):
        PoolReader.of([nobody]).read(PoolImage("s/a", "s3://photos/a.png"))


def test_missing_credentials_name_the_variables(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put("a.png", b"a")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    options = {
        "endpoint_url": f"{s3.url}/"
    }  # spelt as in no other test: fsspec keeps file systems once they are open
    with pytest.raises(PoolError, match=r"redentials.*AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        list_images([source(s3, images="s3://photos", storage_options=options)], tmp_path)


def test_other_processes_and_threads_read_with_a_pickled_reader(s3: S3, tmp_path: Path) -> None:
    s3.put("a.png", b"abc")
    wanted = source(s3, images="s3://photos")
    reader = pickle.loads(pickle.dumps(PoolReader.of([wanted])))
    (image,) = list_images([wanted], tmp_path)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(reader.read, image).result() == b"abc"


def test_a_file_elsewhere_is_copied_once_for_training(s3: S3, tmp_path: Path) -> None:
    s3.put("a.png", b"abc")
    wanted = source(s3, images="s3://photos")
    reader = PoolReader.of([wanted])
    (image,) = list_images([wanted], tmp_path)
    copy = reader.local_file(image, tmp_path / "copies")
    assert (copy.read_bytes(), copy.suffix) == (b"abc", ".png")
    s3.client.delete_object(Bucket="photos", Key="a.png")
    assert reader.local_file(image, tmp_path / "copies") == copy
    assert list((tmp_path / "copies").iterdir()) == [copy]
