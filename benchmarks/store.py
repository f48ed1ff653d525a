"""The prediction store beside one PNG file a map: bytes, and maps a second both ways, through real files."""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.figure import DATA, median_rate, print_absent, print_figure
from benchmarks.histogram import real_pairs, street_pairs
from mad_backend.core.labels import LabelMap
from mad_backend.pool.predictions import EncodedMap, PredictionPack, StoredMap

BLOCK = 32


def main() -> None:
    """One core; 513 x 513; process time, so that neither side waits for the disk."""
    if not DATA.is_dir():
        print_absent("prediction store", DATA)
        return
    for kind, pairs in (("two models", real_pairs(64)), ("street scenes", street_pairs(64))):
        with tempfile.TemporaryDirectory() as root:
            _one_kind(kind, [m for pair in pairs for m in pair], Path(root))


def _one_kind(kind: str, maps: list[LabelMap], root: Path) -> None:
    ids = [f"pool/{n:06d}" for n in range(len(maps))]
    pngs = root / "png"
    pngs.mkdir()
    count, written = len(maps), 0

    def write_pack() -> None:
        nonlocal written
        written += 1
        with PredictionPack(root / f"pack-{written}", writable=True) as pack:
            for start in range(0, count, BLOCK):
                chunk = zip(ids[start : start + BLOCK], maps[start : start + BLOCK], strict=True)
                pack.append([StoredMap(i, 1, EncodedMap.of(m)) for i, m in chunk])

    def write_pngs() -> None:
        for n, label_map in enumerate(maps):
            Image.fromarray(label_map).save(pngs / f"{n:06d}.png")

    peer = "one PNG a map (Pillow)"
    ours_write, png_write = median_rate(write_pack, count, 5), median_rate(write_pngs, count, 3)
    print_figure(f"store, write, {kind}", "maps/s", ours_write, png_write, peer, 5.0)
    with PredictionPack(root / "pack-1") as pack:

        def read_pack() -> None:
            for image_id in ids:
                pack.read(image_id)

        def read_pngs() -> None:
            for n in range(count):
                with Image.open(pngs / f"{n:06d}.png") as image:
                    np.asarray(image)

        def read_runs() -> None:
            for image_id in ids:
                pack.read_runs(image_id)

        ours_read, png_read = median_rate(read_pack, count, 5), median_rate(read_pngs, count, 3)
        print_figure(f"store, read, {kind}", "maps/s", ours_read, png_read, peer, 5.0)
        runs = median_rate(read_runs, count, 5)
        print_figure(f"store, read as runs for comparing, {kind}", "maps/s", runs, 2000.0, "wanted", 1.0)
    sizes = [sum(f.stat().st_size for f in folder.rglob("*.p*")) for folder in (root / "pack-1", pngs)]
    print_figure(
        f"store, size, {kind}",
        "bytes/map",
        sizes[0] / count,
        sizes[1] / count,
        peer,
        0.8,
        less_is_better=True,
    )


if __name__ == "__main__":
    main()
