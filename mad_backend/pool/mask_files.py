"""Label maps that people made, as files: index PNGs, complete or not there at all."""

import hashlib
import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from mad_backend.core.labels import LabelMap


def index_png(label_map: LabelMap) -> bytes:
    """8-bit grey PNG of an (H, W) uint8 label map: the value is the class id, 255 void."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(label_map)).save(file, format="PNG")
    return file.getvalue()


def write_mask(path: Path, label_map: LabelMap) -> str:
    """SHA-256 (hex) of the index PNG that `path` holds afterwards; what is there already is left alone.

    Temporary name, fsync, rename: whoever finds `path` finds all of it.
    """
    content = index_png(label_map)
    digest = hashlib.sha256(content).hexdigest()
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == digest:
        return digest
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return digest
