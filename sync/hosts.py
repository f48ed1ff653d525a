"""The places for pictures beside Label Studio's own uploads, and which one settings want (label_studio.media)."""

import base64
import os
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any, Final, Protocol, assert_never

from mad_backend.errors import LabelStudioError, SettingsError
from mad_backend.pictures import PictureFolder, write_picture
from mad_backend.pool.writing import write_jpegs
from mad_backend.settings import CloudSettings, LocalFilesSettings, Settings
from mad_backend.store.store import Store
from sync.client import LabelStudioClient
from sync.pictures import PictureHost, UploadedPictures
from sync.shapes import UPLOADS
from sync.storages import Storage, cloud_storage, ensure_storage, local_storage, split_address, with_cure

_LOCAL_FILES: Final = "/data/local-files/?d="


def picture_host(
    settings: Settings, store: Store, client: LabelStudioClient, shelf: int | Callable[[], int] | None = None
) -> PictureHost:
    """Where pictures of tasks go by `settings`; uploads go to the project `shelf`, as UploadedPictures has it.

    Raises SettingsError.
    """
    media = settings.label_studio.media
    match media:
        case "upload":
            return UploadedPictures(client, shelf)
        case "serve":
            assert settings.serve.public_url is not None
            folder = PictureFolder(settings.pictures, store.remote.sign)
            return ServedPictures(folder, settings.serve.public_url)
        case "local-files":
            assert settings.label_studio.local_files is not None
            return StoredPictures(client, LocalFiles(settings.label_studio.local_files, client.path))
        case "cloud":
            assert settings.label_studio.cloud is not None
            return StoredPictures(client, Bucket(settings.label_studio.cloud, os.environ))
        case "as-is":
            overlays = UploadedPictures(client, shelf)
            return OwnAddresses(client, overlays, settings.label_studio.cloud, os.environ)
        case _:
            assert_never(media)


class ServedPictures:
    """Files that `mad serve` gives to browsers (`media: serve`)."""

    def __init__(self, folder: PictureFolder, public_url: str) -> None:
        self._folder = folder
        self._public_url = public_url

    def own_address(self, address: str) -> str | None:
        return None

    def place(self, project_id: int, pictures: Mapping[str, bytes]) -> dict[str, str]:
        for name, content in pictures.items():
            self._folder.write(name, content)
        return {name: self._public_url + self._folder.address(name) for name in pictures}


class StoragePlace(Protocol):
    """Where `StoredPictures` puts files, and how Label Studio comes by them."""

    cure: str
    """What to do if the server does not give them, as the end of a message."""

    def record(self) -> Storage: ...

    def write(self, pictures: Mapping[str, bytes]) -> None:
        """Raises PoolError."""

    def address(self, name: str) -> str:
        """For the data of tasks."""

    def path(self, project_id: int, name: str) -> str:
        """Where the server gives the file to whoever is logged in."""


class StoredPictures:
    """Files in a storage of which each project has a record (`media: local-files`, `media: cloud`)."""

    def __init__(self, client: LabelStudioClient, place: StoragePlace) -> None:
        self._client = client
        self._place = place
        self._ready: set[int] = set()

    def own_address(self, address: str) -> str | None:
        return None

    def place(self, project_id: int, pictures: Mapping[str, bytes]) -> dict[str, str]:
        self._place.write(pictures)
        if pictures and project_id not in self._ready:
            # Once a project, after its first files: a record of an empty storage is refused.
            name = next(iter(pictures))
            self._connect(project_id, name, pictures[name])
            self._ready.add(project_id)
        return {name: self._place.address(name) for name in pictures}

    def _connect(self, project_id: int, name: str, content: bytes) -> None:
        """Raises unless the server then gives the file `name` as it was written."""
        ensure_storage(self._client, project_id, self._place.record(), self._place.cure)
        try:
            given = self._client.download(self._place.path(project_id, name), len(content))
        except LabelStudioError as error:
            raise with_cure(str(error), error.status, self._place.cure) from error
        if given != content:
            raise SettingsError(
                f"project {project_id}: Label Studio gives another file for {self._place.address(name)} than was "
                f"written; {self._place.cure}"
            )


class LocalFiles:
    """A folder that Label Studio sees too; `base` is the path of its own address ("" or "/label-studio")."""

    def __init__(self, settings: LocalFilesSettings, base: str) -> None:
        if not settings.root.is_dir():
            raise SettingsError(f"label_studio.local_files.root: there is no folder {settings.root} here")
        there = (settings.root_there or str(settings.root)).rstrip("/")
        self._folder = settings.root / settings.folder
        self._top = f"{base}{_LOCAL_FILES}{settings.folder}"
        self._there = f"{there}/{settings.folder}"
        self.cure = (
            "start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
            f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={there}, where it must see the folder that is "
            f"{settings.root} here (label_studio.local_files: root_there is its name there)"
        )

    def record(self) -> Storage:
        return local_storage(self._there)

    def write(self, pictures: Mapping[str, bytes]) -> None:
        for name, content in pictures.items():
            write_picture(self._folder, name, content)

    def address(self, name: str) -> str:
        return f"{self._top}/{name}"

    def path(self, project_id: int, name: str) -> str:
        return self.address(name)


class Bucket:
    """A bucket or container; credentials for writing, and for Label Studio's record, are those of `environment`."""

    def __init__(self, settings: CloudSettings, environment: Mapping[str, str]) -> None:
        scheme, bucket, prefix = split_address(settings.prefix)
        self._settings = settings
        self._storage = cloud_storage(settings.prefix, settings, environment)
        self._top = f"{scheme}://{bucket}/{prefix}".rstrip("/")
        self.cure = _bucket_cure(settings.endpoint_url)

    def record(self) -> Storage:
        return self._storage

    def write(self, pictures: Mapping[str, bytes]) -> None:
        write_jpegs(self._settings.prefix, pictures, _options(self._settings))

    def address(self, name: str) -> str:
        return f"{self._top}/{name}"

    def path(self, project_id: int, name: str) -> str:
        coded = base64.urlsafe_b64encode(self.address(name).encode()).decode()
        return f"/projects/{project_id}/presign/?fileuri={coded}"


class OwnAddresses:
    """Photos where the pool has them (`media: as-is`); overlays, which lie nowhere yet, go to `overlays`.

    A project is given a storage record for each bucket that its photos lie in; `cloud` says how, if it is set.
    """

    def __init__(
        self,
        client: LabelStudioClient,
        overlays: UploadedPictures,
        cloud: CloudSettings | None,
        environment: Mapping[str, str],
    ) -> None:
        self._client = client
        self._overlays = overlays
        self._cloud = cloud
        self._environment = environment
        self._buckets: set[str] = set()  # grows in the threads that draw, while `place` runs in another
        self._ready: set[tuple[int, str]] = set()

    def own_address(self, address: str) -> str | None:
        """Raises SettingsError for a photo that no browser can ask for."""
        scheme, is_address, rest = address.partition("://")
        if is_address and scheme in ("http", "https"):
            return address
        if is_address:
            scheme, bucket, _ = split_address(address)
            self._buckets.add(f"{scheme}://{bucket}")
            return f"{scheme}://{rest}"
        # The pool may lie in a folder /data of this machine, too.
        own = address.removeprefix(self._client.path)
        if own.startswith((UPLOADS, _LOCAL_FILES)) and not Path(address).exists():
            return address
        raise SettingsError(
            f'label_studio.media as-is: no browser can ask for "{address}", a file of this machine; set media to '
            "upload, serve, local-files or cloud, or let the pool name https:// or s3:// addresses"
        )

    def place(self, project_id: int, pictures: Mapping[str, bytes]) -> dict[str, str]:
        for bucket in sorted(self._buckets.copy()):
            if (project_id, bucket) not in self._ready:
                self._connect(project_id, bucket)
                self._ready.add((project_id, bucket))
        return self._overlays.place(project_id, pictures)

    def lost(self, project_id: int, addresses: Set[str]) -> set[str]:
        return self._overlays.lost(project_id, addresses)

    def _connect(self, project_id: int, bucket: str) -> None:
        # Endpoint and region are those of one store; a pool may have photos in others too.
        is_meant = self._cloud and split_address(self._cloud.prefix)[0] == split_address(bucket)[0]
        settings = self._cloud if is_meant else None
        record = cloud_storage(bucket, settings, self._environment)
        ensure_storage(
            self._client, project_id, record, _bucket_cure(settings.endpoint_url if settings else None)
        )


def _options(settings: CloudSettings) -> dict[str, Any]:
    """What the fsspec file system is given; only that of S3 may have either."""
    found: dict[str, Any] = {}
    if settings.endpoint_url is not None:
        found["endpoint_url"] = settings.endpoint_url
    if settings.region is not None:
        found["client_kwargs"] = {"region_name": settings.region}
    return found


def _bucket_cure(endpoint_url: str | None) -> str:
    where = f" at {endpoint_url}" if endpoint_url else ""
    return (
        f"Label Studio itself must reach the store{where} and may read it: with the credentials in the environment "
        "here, else with its own; a store at a private address wants LABEL_STUDIO_SSRF_PROTECTION_ENABLED=false there"
    )
