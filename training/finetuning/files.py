"""Files of a run that are whole or absent, whatever ends the process or fills the disk."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mad_backend.errors import StoreError

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Writes tensors and plain values under a temporary name and renames: never half a checkpoint.

    Raises StoreError when there is no room.
    """
    import torch  # late: those who write no tensors do not wait for it

    with _replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """Writes JSON under a temporary name and renames; raises StoreError when there is no room."""
    write_bytes(path, json.dumps(value, indent=2).encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes under a temporary name and renames; raises StoreError when there is no room."""
    with _replacing(path) as temporary:
        temporary.write_bytes(content)


def check_room(folder: Path, needed_bytes: int, what: str) -> None:
    """Raises StoreError while there is still time, instead of failing half way through a checkpoint."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise StoreError(
            f"{folder} has {_size(free)} free; {what} needs {_size(needed_bytes)}: make room or move the workspace"
        )


def forget_unfinished(folder: Path) -> None:
    """Deletes what a process that was killed had not finished writing."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    # By process: several of one run may tell the same thing.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        number = getattr(error, "errno", None)
        # PyTorch tells of a failed write in words of its own.
        if number in NO_ROOM or (number is None and "write" in str(error).lower()):
            raise StoreError(
                f"no room for {path}: {error}; the last finished epoch is kept: make room and start again, it goes on "
                "from there"
            ) from error
        raise


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
