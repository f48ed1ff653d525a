"""A real S3 server (moto's) for the tests that list and read buckets."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class S3:
    """`client` is boto3's, for putting and deleting; `url` is what endpoint_url shall be."""

    url: str
    client: Any

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket="photos", Key=key, Body=content)


@pytest.fixture(scope="session")
def _s3_url() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end and server.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        assert server.poll() is None, "moto's server did not start"
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture
def s3(_s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """An empty bucket "photos"; credentials are in the environment, as users have them."""
    import boto3

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "an-id",
        "AWS_SECRET_ACCESS_KEY": "HUSH",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=_s3_url)
    client.create_bucket(Bucket="photos")
    yield S3(_s3_url, client)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="photos")
    for page in pages:
        for found in page.get("Contents", ()):
            client.delete_object(Bucket="photos", Key=found["Key"])
    client.delete_bucket(Bucket="photos")
    client.close()
