"""The folder of pictures that `mad serve` gives to browsers: opaque names, and who may ask for one."""

import hmac
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mad_backend.errors import PoolError

_NAME: Final = re.compile(r"[0-9a-f]{24}-[a-z]\.jpg", re.ASCII)
"""An item key, and which of the task's pictures it is."""


def write_picture(folder: Path, name: str, content: bytes) -> None:
    """Whole or not at all, in place of an older one; raises PoolError if `folder` cannot be written to."""
    temporary = folder / f".{name}.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(folder / name)
    except OSError as error:
        raise PoolError(
            f"cannot write pictures into {folder}: {error.strerror}; check that it is a folder which this user may "
            "write to, and that the disk is not full"
        ) from error


class PictureFolder:
    """Pictures that one may have who knows their address; `sign` is a store's, so that its processes agree.

    Addresses do not expire: tasks show them for as long as people rate and draw.
    """

    def __init__(self, root: Path, sign: Callable[[str], str]) -> None:
        self._root = root.absolute()
        self._sign = sign

    def write(self, name: str, content: bytes) -> None:
        """Raises PoolError."""
        write_picture(self._root, name, content)

    def address(self, name: str) -> str:
        """What follows serve.public_url."""
        return f"/pictures/{name}?s={self._sign(name)}"

    def find(self, name: str, signature: str) -> Path | None:
        """The file, or None: not such a name, not our signature of it, or no such file."""
        if not _NAME.fullmatch(name):
            return None
        # In constant time, so that answers tell nothing about how much of a guess was right.
        is_ours = hmac.compare_digest(signature.encode("utf-8", "replace"), self._sign(name).encode())
        file = self._root / name
        return file if is_ours and file.is_file() else None
