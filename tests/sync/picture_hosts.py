"""What tests of picture hosts share: small files, a web server, an S3 server."""

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import numpy as np
import pytest
from flask import Flask
from moto.server import ThreadedMotoServer
from PIL import Image
from waitress.server import create_server


def pictures(count: int) -> dict[str, bytes]:
    """JPEG files of 20 x 30 pixels by name."""
    found = {}
    for n in range(count):
        file = io.BytesIO()
        pixels = np.random.default_rng(n).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, format="JPEG")
        found[f"{n:024x}-a.jpg"] = file.getvalue()
    return found


@contextmanager
def running(app: Flask, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """The address of `app` under waitress."""
    server, ended = create_server(app, host=host, port=port, threads=4), threading.Event()
    thread = threading.Thread(target=_run, args=(server, ended), daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.effective_port}"
    finally:
        ended.set()
        thread.join(20)


def _run(server: Any, ended: threading.Event) -> None:
    """All in one thread: waitress's own loop cannot be ended from another one without a race."""
    while not ended.is_set():
        server.asyncore.loop(timeout=0.1, map=server._map, count=1)
    server.task_dispatcher.shutdown()
    for channel in list(server.active_channels.values()):
        channel.handle_close()  # clients keep connections open
    server.close()


@dataclass(frozen=True)
class Buckets:
    """Moto's S3 server with an empty bucket "pictures"; `client` is boto3's."""

    url: str
    client: Any

    def keys(self) -> list[str]:
        return [o["Key"] for o in self.client.list_objects_v2(Bucket="pictures").get("Contents", ())]


@contextmanager
def buckets() -> Iterator[Buckets]:
    """Credentials are in the environment meanwhile, as users have them."""
    keys = {"AWS_ACCESS_KEY_ID": "an-id", "AWS_SECRET_ACCESS_KEY": "HUSH", "AWS_DEFAULT_REGION": "us-east-1"}
    files = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in {**keys, **files, "AWS_EC2_METADATA_DISABLED": "true"}.items():
            patch.setenv(name, value)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        url = "http://{}:{}".format(*server.get_host_and_port())
        client = boto3.client("s3", endpoint_url=url)
        client.create_bucket(Bucket="pictures")
        found = Buckets(url, client)
        try:
            yield found
        finally:
            for key in found.keys():  # noqa: SIM118 - not a dict: moto keeps buckets for the whole process
                client.delete_object(Bucket="pictures", Key=key)
            client.delete_bucket(Bucket="pictures")
            client.close()
            server.stop()
