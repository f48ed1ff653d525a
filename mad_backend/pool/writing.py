"""Writes files to a store that fsspec reads (s3://bucket/key)."""

from collections.abc import Mapping
from typing import Any, Final

from mad_backend.errors import PoolError
from mad_backend.pool.files import EXTRAS, open_system, shown
from mad_backend.settings import CREDENTIALS

_TYPED: Final = {"s3": "ContentType", "gcs": "content_type"}
"""Extra -> what its file system calls the type that a store shall tell browsers."""


def write_jpegs(prefix: str, files: Mapping[str, bytes], options: Mapping[str, Any]) -> None:
    """Writes JPEG files, name -> content, to `prefix`/name, all at once and in place of older ones.

    `options` are those of the fsspec file system. Raises PoolError when the store cannot be reached or refuses;
    MissingRuntimeError when the package that writes there is not installed.
    """
    extra = EXTRAS.get(prefix.partition("://")[0], "")
    system = open_system(prefix, options)
    kind = {_TYPED[extra]: "image/jpeg"} if extra in _TYPED else {}
    try:
        system.pipe({f"{prefix.rstrip('/')}/{name}": content for name, content in files.items()}, **kind)
    except Exception as error:  # every file system raises errors of its own packages: botocore, azure, google
        told = shown(str(error)) or type(error).__name__
        source = f"; credentials come from: {CREDENTIALS[extra]}" if extra in CREDENTIALS else ""
        raise PoolError(f"{shown(prefix)} cannot be written to: {told}{source}") from error
