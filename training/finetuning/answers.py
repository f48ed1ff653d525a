"""What teachers answered, kept on disk: images that come again need not be asked about again."""

import hashlib
import io
import logging
import os
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mad_backend.errors import StoreError
from mad_backend.models.registry import stored_key
from mad_backend.models.torch_model import TorchModel
from training.finetuning.files import write_bytes

log = logging.getLogger(__name__)

FULL, LEFT = 1 / 20, 4 / 5
"""After putting so much of the capacity a process looks how much there is; what was left longest is deleted down to
LEFT. So four processes that fill one folder at once stay within its capacity.
"""
CHECKSUM_BYTES = 4


CPU_CAPACITY = 4 << 30


class AnswerStore:
    """Arrays by key in files of `folder`, some `capacity` bytes of them and never more than leaves half the disk free.

    Any number of processes use one folder at once. A file is whole, or is not counted as there; one that is deleted
    meanwhile is not there. What cannot be kept is not: the answers are the same without.
    """

    def __init__(self, folder: Path, capacity: int) -> None:
        self._folder, self._capacity = folder, capacity
        self._since_look = capacity
        self._is_open = True
        self._shown: torch.Tensor | None = None
        self._digests: dict[bool, list[str]] = {}

    def get(self, key: str) -> NDArray[np.float32] | None:
        """What was put under `key`, None where that is not there, or no longer what it was."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        body, checksum = content[:-CHECKSUM_BYTES], content[-CHECKSUM_BYTES:]
        if _checksum(body) != checksum:
            return None
        with suppress(OSError):
            os.utime(path)
        found: NDArray[np.float32] = np.load(io.BytesIO(body), allow_pickle=False)
        return found

    def put(self, key: str, answer: NDArray[np.float32]) -> None:
        """Keeps an array, if there is room."""
        if not self._is_open:
            return
        body = io.BytesIO()
        np.save(body, answer, allow_pickle=False)
        content = body.getvalue() + _checksum(body.getvalue())
        try:
            self._since_look += len(content)
            if self._since_look > FULL * self._capacity:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._make_room()
            path = self._path(key)
            path.parent.mkdir(exist_ok=True)
            write_bytes(path, content)
        except (OSError, StoreError) as error:
            log.warning("answers of teachers are no longer kept in %s: %s", self._folder, error)
            self._is_open = False

    def digests(self, inputs: torch.Tensor, *, mirrored: bool) -> list[str]:
        """SHA-256 of each image of a (n, 3, H, W) batch, or of its mirror image; the last batch's are remembered."""
        if inputs is not self._shown:
            self._shown, self._digests = inputs, {}
        if mirrored not in self._digests:
            seen = (inputs.flip(-1) if mirrored else inputs).detach().float().cpu().contiguous()
            self._digests[mirrored] = [hashlib.sha256(image.numpy()).hexdigest() for image in seen]
        return self._digests[mirrored]

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / key

    def _make_room(self) -> None:
        """Deletes what was neither written nor read for the longest time."""
        found = []
        for entry in (e for part in self._folder.iterdir() if part.is_dir() for e in os.scandir(part)):
            with suppress(FileNotFoundError):
                status = entry.stat()
                found.append((status.st_mtime_ns, entry.path, status.st_size))
        left = sum(size for _, _, size in found)
        room = os.statvfs(self._folder)
        capacity = min(self._capacity, left + room.f_bavail * room.f_frsize // 2)
        for _, path, size in sorted(found):
            if left <= LEFT * capacity:
                break
            Path(path).unlink(missing_ok=True)
            left -= size
        self._since_look = 0


def answers_for(device: torch.device, given: int | None) -> int:
    """Bytes for answers. A GPU gives them as fast as a disk, and images would have to leave it to be known again."""
    if given is not None:
        return given
    return CPU_CAPACITY if device.type == "cpu" else 0


def answerer(model: TorchModel, *given: object) -> str:
    """SHA-256 (hex) of a network as it is now, and of all that its logits depend on beside the image.

    `given`: what else is done to the student's input. Other libraries, devices and numbers of threads round
    differently, and a run that goes on shall end as one that was not disturbed.
    """
    digest = hashlib.sha256(stored_key(model.name, model.settings, model.labels, model.grid).encode())
    device = model.device.type
    digest.update(f"{given} {torch.__version__} {device} {torch.get_num_threads()}".encode())
    for name, value in model.module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def key_of(*parts: object) -> str:
    """SHA-256 (hex) of what an answer depends on."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(CHECKSUM_BYTES, "little")
