"""Joint histograms of every (image, target, competitor), in Parquet shards."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mad_backend.core.metrics import JointHistogram

SHARD_GLOB = "part-*.parquet"


class ScoreStore:
    """Histograms by (target key, competitor key). A shard is written under a temporary name and renamed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def image_ids(self, target: str, competitor: str) -> set[str]:
        """Images that already have a histogram of this pair."""
        found: set[str] = set()
        for shard in self._shards(target, competitor):
            found.update(pq.read_table(shard, columns=["image_id"])["image_id"].to_pylist())
        return found

    def append(self, target: str, competitor: str, joints: Mapping[str, JointHistogram]) -> None:
        """Writes one shard of (C + 1, C + 1) histograms by image id."""
        if not joints:
            return
        folder = self._root / target / competitor
        folder.mkdir(parents=True, exist_ok=True)
        ids = sorted(joints)
        flat = np.stack([joints[i] for i in ids]).astype(np.int32)
        cells = flat.shape[1] * flat.shape[2]
        column = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), cells)
        table = pa.table({"image_id": ids, "joint": column})
        last = max((int(p.stem.removeprefix("part-")) for p in folder.glob(SHARD_GLOB)), default=-1)
        path = folder / f"part-{last + 1:05d}.parquet"
        temporary = path.with_suffix(".tmp")
        pq.write_table(table, temporary, compression="zstd")
        temporary.replace(path)

    def read(self, target: str, competitor: str) -> Iterator[tuple[str, JointHistogram]]:
        """Every (image id, (C + 1, C + 1) int64 histogram) of a pair, shard by shard."""
        for shard in self._shards(target, competitor):
            for batch in pq.ParquetFile(shard).iter_batches(batch_size=1024):
                joints = batch.column("joint")
                side = round(joints.type.list_size**0.5)
                flat = joints.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
                ids = batch.column("image_id").to_pylist()
                yield from zip(ids, flat.reshape(-1, side, side), strict=True)

    def _shards(self, target: str, competitor: str) -> list[Path]:
        return sorted((self._root / target / competitor).glob(SHARD_GLOB))
