"""Storages of Label Studio: by its record in a project the server knows where pictures lie and how to get them."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mad_backend.errors import LabelStudioError, SettingsError
from mad_backend.settings import CloudSettings
from sync.client import LabelStudioClient

log = logging.getLogger(__name__)

_TITLE: Final = "MAD pictures"
_PRESIGN_MINUTES: Final = 15
"""Label Studio's own minute is short where clocks differ."""
_PASSING: Final = (401, 408, 429)
_SCHEMES: Final = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gs"),
    **dict.fromkeys(("az", "abfs", "azure-blob"), "azure-blob"),
}
"""What fsspec calls a store -> what Label Studio calls it."""


@dataclass(frozen=True)
class Storage:
    """A record as Label Studio 1.23 takes it; `kind` names the endpoint: localfiles, s3, gcs or azure.

    By the field `identity` an older record of the same place is known. `secrets` are fields too, never shown.
    """

    kind: str
    identity: str
    fields: Mapping[str, Any]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


def local_storage(folder: str) -> Storage:
    """`folder` as the server sees it; must lie below its LOCAL_FILES_DOCUMENT_ROOT."""
    return Storage("localfiles", "path", {"path": folder})


def cloud_storage(address: str, settings: CloudSettings | None, environment: Mapping[str, str]) -> Storage:
    """The bucket of `address`; `environment` is where the server's credentials for it are looked for.

    Without any there, the server is left to its own. Raises SettingsError.
    """
    scheme, bucket, prefix = split_address(address)
    endpoint_url, region = (settings.endpoint_url, settings.region) if settings else (None, None)
    presign = settings is not None and settings.presign
    fields = {"prefix": prefix, "presign": presign, "presign_ttl": _PRESIGN_MINUTES}
    if scheme == "s3":
        region = region or environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
        fields |= {"bucket": bucket, "s3_endpoint": endpoint_url, "region_name": region}
        return Storage("s3", "bucket", fields, _s3_secrets(environment))
    if endpoint_url is not None or region is not None:
        raise SettingsError(
            f"label_studio.cloud: endpoint_url and region are for s3:// only, not for {address}; leave them out"
        )
    if scheme == "gs":
        return Storage("gcs", "bucket", fields | {"bucket": bucket}, _google_secrets(environment))
    return Storage("azure", "container", fields | {"container": bucket}, _azure_secrets(environment))


def split_address(address: str) -> tuple[str, str, str]:
    """(Label Studio's scheme, bucket, key or prefix) of an address of a store; raises SettingsError."""
    scheme, _, rest = address.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme not in _SCHEMES or not bucket or "@" in bucket:
        raise SettingsError(
            f"{scheme}://{bucket.rpartition('@')[2]}: Label Studio takes s3://bucket/..., gs://bucket/... and "
            "az://container/..."
        )
    return _SCHEMES[scheme], bucket, key.strip("/")


def ensure_storage(client: LabelStudioClient, project_id: int, storage: Storage, cure: str) -> None:
    """Makes the project's record, or brings it up to date (other settings, new keys).

    The server looks into the storage before it takes a record, and wants a file there. Raises SettingsError, its
    message ending in `cure`, where the server refuses the record, LabelStudioError where it fails.
    """
    path = f"/api/storages/{storage.kind}/"
    wanted = f"giving project {project_id} a storage record for {storage.fields[storage.identity]}"
    listed = client.get(path, f"listing the storages of project {project_id}", {"project": project_id})
    mine = (r for r in listed if r.get(storage.identity) == storage.fields[storage.identity])
    found = next(mine, None)
    # Not synchronizable: "Sync" in Label Studio's settings would make a task of every picture.
    body = {"project": project_id, "title": _TITLE, "synchronizable": False, "use_blob_urls": True}
    body |= {**storage.fields, **storage.secrets}
    method = "PATCH" if found else "POST"
    try:
        client.send(method, f"{path}{found['id']}" if found else path, wanted, body)
    except LabelStudioError as error:
        raise with_cure(_scrubbed(str(error), storage.secrets), error.status, cure) from None
    log.info("project %d: %s storage record %s", project_id, storage.kind, "renewed" if found else "made")


def with_cure(told: str, status: int | None, cure: str) -> SettingsError | LabelStudioError:
    """What to raise of an answer: a SettingsError where it would be the same at every further try."""
    message = f"{told}; {cure}"
    if status is not None and 400 <= status < 500 and status not in _PASSING:
        return SettingsError(message)
    return LabelStudioError(message, status)


def _s3_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    names = {
        "aws_access_key_id": "AWS_ACCESS_KEY_ID",
        "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
        "aws_session_token": "AWS_SESSION_TOKEN",
    }
    found = {field: environment[name] for field, name in names.items() if environment.get(name)}
    if "aws_session_token" in found:
        log.warning(
            "AWS_SESSION_TOKEN is handed to Label Studio, and no picture is seen once it expires; use keys that last"
        )
    return found


def _google_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The content of the key file: the server may run elsewhere."""
    place = environment.get("GOOGLE_APPLICATION_CREDENTIALS")
    if not place:
        return {}
    try:
        return {"google_application_credentials": Path(place).read_text(encoding="utf-8")}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"GOOGLE_APPLICATION_CREDENTIALS names {place}, which cannot be read ({type(error).__name__})"
        ) from None


def _azure_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    text = environment.get("AZURE_STORAGE_CONNECTION_STRING", "")
    parts = dict(part.partition("=")[::2] for part in text.split(";") if "=" in part)
    name = environment.get("AZURE_STORAGE_ACCOUNT_NAME") or parts.get("AccountName")
    key = environment.get("AZURE_STORAGE_ACCOUNT_KEY") or parts.get("AccountKey")
    return {"account_name": name, "account_key": key} if name and key else {}


def _scrubbed(text: str, secrets: Mapping[str, str]) -> str:
    """`text` without the credentials, should the server ever repeat one."""
    for secret in secrets.values():
        text = text.replace(secret, "***")
    return text
