"""The joint histogram of two label maps and both distances from it: pixels and runs, beside everybody's way."""

import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from PIL import Image

from benchmarks.figure import DATA, median_rate, print_absent, print_figure
from mad_backend.core.labels import LabelMap
from mad_backend.core.metrics import JointHistogram, joint_histogram
from mad_backend.core.runs import RunMap
from mad_backend.core.scores import PairScores, scores_of

CLASSES, SIDE = 21, 513
Pairs = list[tuple[LabelMap, LabelMap]]


def real_pairs(count: int) -> Pairs:
    """Label maps that two real networks (ESPNetv2, two widths) gave for the same photos."""
    folder = DATA / "models" / "predictions"
    names = sorted(p.name for p in (folder / "espnetv2_0.5_384" / "voc").glob("*.png"))[:count]
    return [
        (_read(folder / "espnetv2_2.0_384" / "voc" / n), _read(folder / "espnetv2_0.5_384" / "voc" / n))
        for n in names
    ]


def street_pairs(count: int) -> Pairs:
    """Human maps of neighbouring CamVid frames, classes split by image half to make 21: harder than two models."""
    maps = [_read(p).copy() for p in sorted((DATA / "camvid" / "masks").glob("*.png"))[: count + 1]]
    for label_map in maps:
        right = label_map[:, SIDE // 2 :]
        right[right < 11] += 10
        label_map[label_map > 20] = 0  # torchmetrics takes no void
    return list(pairwise(maps))


def noise_pairs(count: int) -> Pairs:
    """Every pixel at random: the worst there is."""
    rng = np.random.default_rng(0)
    return [tuple(rng.integers(0, CLASSES, (2, SIDE, SIDE), np.uint8)) for _ in range(count)]


def main() -> None:
    """One core; 513 x 513, 21 classes; pairs per second."""
    if not DATA.is_dir():
        print_absent("joint histogram", DATA)
        return
    for kind, pairs in (
        ("two models", real_pairs(24)),
        ("street scenes", street_pairs(16)),
        ("noise", noise_pairs(8)),
    ):
        _one_kind(kind, pairs, is_noise=kind == "noise")


def _one_kind(kind: str, pairs: Pairs, *, is_noise: bool) -> None:
    bound = reading_both(pairs)
    ours = median_rate(lambda: _scores(joint_histogram(a, b, CLASSES) for a, b in pairs), len(pairs))
    for peer_name, peer, goal in _peers():
        speed = median_rate(lambda peer=peer: [peer(a, b) for a, b in pairs[:6]], 6, 3)  # type: ignore[misc]
        print_figure(
            f"histogram and both distances, {kind}",
            "pairs/s",
            ours,
            speed,
            peer_name,
            1.0 if is_noise else goal,
            bound,
        )
    runs = [(RunMap.of(a), RunMap.of(b)) for a, b in pairs]
    merged = median_rate(lambda: _scores(_merged(runs)), len(runs))
    name = f"the same from stored runs, {kind}"
    print_figure(name, "pairs/s", merged, bound, "reading both maps from memory", 0.0 if is_noise else 1.0)


def _scores(joints: Iterator[JointHistogram]) -> PairScores:
    """Both distances and all areas, as the scan takes them."""
    found = list(joints)
    none = np.zeros(len(found), np.uint64)
    return scores_of([""] * len(found), none, none, found)


def _merged(runs: list[tuple[RunMap, RunMap]]) -> Iterator[JointHistogram]:
    for rows, columns in runs:
        joint = np.zeros((CLASSES + 1, CLASSES + 1), np.int64)
        rows.count_with(columns, joint)
        yield joint


def reading_both(pairs: Pairs) -> float:
    """Pairs per second at which both maps are read from memory: 128 MiB of copies, more than the caches hold."""
    copies = [np.stack(pair) for pair in pairs]
    copies = [copies[i % len(copies)].copy() for i in range(256)]
    words = copies[0].size // 8 * 8
    return median_rate(lambda: [c.ravel()[:words].view(np.uint64).max() for c in copies], len(copies), 5)


def _peers() -> list[tuple[str, Callable[[LabelMap, LabelMap], object], float]]:
    import torch

    from mad_backend.models.torchvision_operators import define_missing_operators

    define_missing_operators()  # torchmetrics imports torchvision where it finds it
    from mmseg.evaluation import IoUMetric
    from sklearn.metrics import confusion_matrix
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    torch.set_num_threads(1)

    def torchmetrics(rows: LabelMap, columns: LabelMap) -> object:
        one, two = (torch.from_numpy(m.astype(np.int64)) for m in (rows, columns))
        return multiclass_confusion_matrix(one, two, CLASSES, ignore_index=255)

    def mmseg(rows: LabelMap, columns: LabelMap) -> object:
        one, two = (torch.from_numpy(m) for m in (rows, columns))
        return IoUMetric.intersect_and_union(one, two, CLASSES, 255)

    return [
        (
            "scikit-learn confusion_matrix",
            lambda a, b: confusion_matrix(a.ravel(), b.ravel(), labels=range(CLASSES)),
            130.0,
        ),
        ("torchmetrics confusion_matrix", torchmetrics, 1.0),
        ("mmsegmentation intersect_and_union (areas only)", mmseg, 70.0),
        ("numpy bincount", _numpy_bincount, 5.0),
    ]


def _numpy_bincount(rows: LabelMap, columns: LabelMap) -> object:
    key = np.minimum(rows, CLASSES).astype(np.int64) * (CLASSES + 1) + np.minimum(columns, CLASSES)
    joint = np.bincount(key.ravel(), minlength=(CLASSES + 1) ** 2).reshape(CLASSES + 1, -1)[:-1, :-1]
    both = np.diag(joint)
    with np.errstate(invalid="ignore"):
        return np.nanmean(both / (joint.sum(0) + joint.sum(1) - both)), both.sum() / joint.sum()


def _read(path: object) -> LabelMap:
    with Image.open(path) as image:  # type: ignore[arg-type]
        return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.NEAREST), np.uint8)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
