"""Writing to a bucket, on moto's S3 server."""

import fsspec
import pytest

from mad_backend.errors import PoolError
from mad_backend.pool.writing import write_jpegs
from tests.pool.conftest import S3


def test_files_are_written_all_at_once_with_their_type_and_replace_older_ones(s3: S3) -> None:
    options = {"endpoint_url": s3.url}
    for content in (b"one", b"two"):
        write_jpegs("s3://photos/deep/mad/", {f"{n}.jpg": content for n in range(30)}, options)
    listed = s3.client.list_objects_v2(Bucket="photos")["Contents"]
    assert {o["Key"] for o in listed} == {f"deep/mad/{n}.jpg" for n in range(30)}
    found = s3.client.get_object(Bucket="photos", Key="deep/mad/7.jpg")
    assert (found["Body"].read(), found["ContentType"]) == (b"two", "image/jpeg")
    write_jpegs("s3://photos", {"top.jpg": b"x"}, options)
    assert s3.client.get_object(Bucket="photos", Key="top.jpg")["Body"].read() == b"x"


def test_a_store_without_types_of_files_takes_them_too() -> None:
    write_jpegs("memory://pictures", {"a.jpg": b"x"}, {})
    memory = fsspec.filesystem("memory")
    assert memory.cat("/pictures/a.jpg") == b"x"
    memory.store.clear()


def test_what_cannot_be_written_names_the_place_and_the_variables(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        PoolError, match=r"s3://gone cannot be written to: .*; credentials come from: AWS_ACCESS_KEY"
    ):
        write_jpegs("s3://gone", {"a.jpg": b"x"}, {"endpoint_url": s3.url})
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(PoolError, match="s3://photos cannot be written to: ") as told:
        write_jpegs("s3://photos", {"a.jpg": b"x"}, {"endpoint_url": "http://127.0.0.1:1"})
    assert "HUSH" not in str(told.value)
    with pytest.raises(PoolError, match="fsspec cannot open such an address"):
        write_jpegs("nosuch://photos", {"a.jpg": b"x"}, {})
