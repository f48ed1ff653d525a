"""The examples of docs/pools.md, each listed and read: a folder, a manifest, a bucket, a mirrored project."""

import json
import re
from pathlib import Path

import pytest
import yaml

from mad_backend.pool.reader import PoolReader
from mad_backend.pool.sources import MIRROR_MANIFEST, list_images
from mad_backend.settings import ScanSettings, SourceSettings
from tests.pool.conftest import S3

PAGE = (Path(__file__).parents[2] / "docs" / "pools.md").read_text(encoding="utf-8")
EXAMPLES = {
    heading: yaml.safe_load(block)
    for heading, block in re.findall(r"^### (.+?)\n[^#]*?```yaml\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
}
PHOTO = b"a photo"


def listed(source: SourceSettings, mirrors: Path) -> dict[str, bytes]:
    reader = PoolReader.of([source])
    return {image.image_id: reader.read(image) for image in list_images([source], mirrors)}


def test_every_origin_has_an_example() -> None:
    assert list(EXAMPLES) == ["A folder", "A manifest", "Object storage", "A Label Studio project"]


def test_the_folder(tmp_path: Path) -> None:
    (example,) = EXAMPLES["A folder"]
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    (tmp_path / "photos" / "deep" / "a.jpg").write_bytes(PHOTO)
    source = SourceSettings.model_validate({**example, "images": tmp_path / example["images"]})
    assert listed(source, tmp_path) == {"web/deep/a": PHOTO}


def test_the_manifest(tmp_path: Path) -> None:
    (example,) = EXAMPLES["A manifest"]
    manifest = tmp_path / example["manifest"]
    manifest.parent.mkdir()
    manifest.write_text("image,id\ncar/1.jpg,\ncar/2.jpg,second\n")
    for name in ("1.jpg", "2.jpg"):
        (manifest.parent / "car").mkdir(exist_ok=True)
        (manifest.parent / "car" / name).write_bytes(PHOTO)
    source = SourceSettings.model_validate({**example, "manifest": manifest})
    assert listed(source, tmp_path) == {"fleet/car/1": PHOTO, "fleet/second": PHOTO}


def test_the_bucket(s3: S3, tmp_path: Path) -> None:
    (example,) = EXAMPLES["Object storage"]
    bucket = example["images"].removeprefix("s3://").partition("/")[0]
    s3.client.create_bucket(Bucket=bucket)
    s3.client.put_object(Bucket=bucket, Key="2026/a.jpg", Body=PHOTO)
    try:
        source = SourceSettings.model_validate({**example, "storage_options": {"endpoint_url": s3.url}})
        assert listed(source, tmp_path) == {"bucket/a": PHOTO}
    finally:
        s3.client.delete_object(Bucket=bucket, Key="2026/a.jpg")
        s3.client.delete_bucket(Bucket=bucket)


def test_the_label_studio_project_once_it_is_mirrored(tmp_path: Path) -> None:
    """That the mirror itself comes from a real server is tests/sync/test_pool.py's."""
    (example,) = EXAMPLES["A Label Studio project"]
    source = SourceSettings.model_validate(example)
    folder = tmp_path / source.name
    folder.mkdir()
    (folder / "7.jpg").write_bytes(PHOTO)
    (folder / MIRROR_MANIFEST).write_text(json.dumps({"image": "7.jpg", "id": "7"}) + "\n")
    assert listed(source, tmp_path) == {"labelled/7": PHOTO}


def test_every_layout_of_labelled_images_is_valid() -> None:
    block = re.search(r"## Data sets as they are\n.*?```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert block
    sources = [SourceSettings.model_validate(entry) for entry in yaml.safe_load(block[1])]
    origins = [source.origin.value for source in sources]
    assert origins == ["voc", "cityscapes", "coco", "coco", "mmseg", "images"]


def test_the_example_of_the_scan_is_valid() -> None:
    block = re.search(r"```yaml\n(scan:.*?)```", PAGE, re.DOTALL)
    assert block
    assert ScanSettings.model_validate(yaml.safe_load(block[1])["scan"]).devices == ("cuda:0", "cuda:1")


@pytest.fixture(autouse=True)
def _no_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
