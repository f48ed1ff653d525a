"""The brush RLE codec beside Label Studio's own SDK and a Rust one, in masks of one class of street scenes."""

import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.figure import DATA, median_rate, print_absent, print_figure
from mad_backend.label_studio.brush_rle import decode_alpha, encode_alpha

Alpha = NDArray[np.uint8]

SDK = Path(__file__).parents[1] / ".venv-label-studio" / "bin" / "python"
SIZES = ((480, 360, 4), (513, 513, 3), (2048, 1024, 1))
"""Width, height, and how many scenes (of three classes each) the SDK has time for."""

PEER = """
import sys, time
import numpy as np
from label_studio_sdk.converter.brush import decode_rle, mask2rle
masks = list(np.load(sys.argv[1]).values())
began = time.process_time()
codes = [mask2rle(mask) for mask in masks]
middle = time.process_time()
for code, mask in zip(codes, masks):
    assert np.array_equal(np.reshape(decode_rle(code), [*mask.shape, 4])[:, :, 3], mask)
print(len(masks) / (middle - began), len(masks) / (time.process_time() - middle))
"""
"""Prints masks a second: encoded and, alpha channel taken out as the SDK's own converter does it, decoded."""


def main() -> None:
    """One core; process time."""
    if not DATA.is_dir():
        print_absent("brush RLE", DATA)
        return
    for width, height, scenes in SIZES:
        _one_size(width, height, scenes)


def _one_size(width: int, height: int, scenes: int) -> None:
    masks = street_masks(width, height, scenes)
    codes = [encode_alpha(mask) for mask in masks]
    name = f"{width}x{height}"
    bound = median_rate(lambda: [np.flatnonzero(m.ravel()[1:] != m.ravel()[:-1]) for m in masks], len(masks))
    encode = median_rate(lambda: [encode_alpha(mask) for mask in masks], len(masks))
    decode = median_rate(lambda: [decode_alpha(code, height, width) for code in codes], len(masks))
    if SDK.exists():
        sdk_encode, sdk_decode = _sdk_rates(masks)
        peer = "label_studio_sdk"
        print_figure(f"brush RLE, encode {name}", "masks/s", encode, sdk_encode, peer, 20.0, bound)
        print_figure(f"brush RLE, decode {name}", "masks/s", decode, sdk_decode, peer, 50.0)
    else:
        _print_missing(f"brush RLE {name}", "Label Studio's own environment (make setup)")
    if find_spec("label_studio_brush_rle_rs") is None:
        _print_missing(f"brush RLE {name} beside Rust", "label-studio-brush-rle-rs")
        return
    rust_encode, rust_decode = _rust_rates(masks, codes)
    peer = "label-studio-brush-rle-rs"
    print_figure(f"brush RLE, encode {name}", "masks/s", encode, rust_encode, peer, 1.0, bound)
    print_figure(f"brush RLE, decode {name}", "masks/s", decode, rust_decode, peer, 1.0)


def street_masks(width: int, height: int, scenes: int) -> list[Alpha]:
    """Sky, building and road of CamVid's human maps, as alpha channels."""
    masks = []
    for path in sorted((DATA / "camvid" / "masks").glob("*.png"))[:scenes]:
        with Image.open(path) as image:
            label_map = np.asarray(image.resize((width, height), Image.Resampling.NEAREST))
        masks += [(label_map == class_id) * np.uint8(255) for class_id in (0, 1, 3)]
    return masks


def _sdk_rates(masks: list[Alpha]) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as root:
        file = Path(root) / "masks.npz"
        np.savez(file, *masks)
        command = [SDK, "-W", "ignore", "-c", PEER, file]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    encode, decode = map(float, done.stdout.split())
    return encode, decode


def _rust_rates(masks: list[Alpha], codes: list[list[int]]) -> tuple[float, float]:
    import label_studio_brush_rle_rs as rust

    def encode(mask: Alpha) -> Any:
        return rust.encode_rle(np.repeat(mask.ravel(), 4), 8, [3, 4, 8, 16])

    def decode(code: list[int]) -> Any:
        return np.asarray(rust.decode_rle(code, False), np.uint8)[3::4].copy()

    for mask, code in zip(masks, codes, strict=True):
        assert np.array_equal(decode(code), mask.ravel())
    return (
        median_rate(lambda: [encode(mask) for mask in masks], len(masks), 3),
        median_rate(lambda: [decode(code) for code in codes], len(masks), 3),
    )


def _print_missing(name: str, wanted: str) -> None:
    sys.stdout.write(json.dumps({"name": name, "skipped": f"needs {wanted}"}) + "\n")


if __name__ == "__main__":
    main()
