"""Our IoU, mIoU and pixel accuracy are those of torchmetrics and of mmsegmentation, on generated and on real maps.

torchmetrics divides in float32, whose last digit is the eighth: its counts are compared exactly, and its ratios to
1e-6. mmsegmentation's own formula is given its counts as float64, and compared to 1e-9.
"""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mad_backend.core.labels import VOID, LabelMap
from mad_backend.core.metrics import (
    confusion_matrix,
    dataset_miou,
    image_miou,
    iou_per_class,
    mean_iou,
    pixel_accuracy,
)
from mad_backend.core.statistics import estimate_all
from mad_backend.models.torchvision_operators import define_missing_operators
from mad_backend.pool.images import read_label_map

with warnings.catch_warnings():
    # They warn about each other when they are first imported.
    warnings.simplefilter("ignore")
    define_missing_operators()
    from mmseg.evaluation.metrics.iou_metric import IoUMetric
    from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex
    from torchmetrics.segmentation import MeanIoU

CLASSES = 21
DATA = Path(__file__).parents[3] / "shared" / "data"


class Maps(NamedTuple):
    """Truths with void and predictions without, image by image, and their confusion matrices (n, C, C + 1)."""

    pairs: list[tuple[LabelMap, LabelMap]]
    matrices: NDArray[np.int64]


@pytest.fixture(scope="module", params=["generated", "real"])
def maps(request: pytest.FixtureRequest) -> Maps:
    pairs = generated() if request.param == "generated" else real()
    return Maps(pairs, np.stack([confusion_matrix(t, p, CLASSES) for t, p in pairs]))


def generated() -> list[tuple[LabelMap, LabelMap]]:
    """Blocks of a few classes an image, class 20 in none, of which predictions get two of three pixels right."""
    rng = np.random.default_rng(7)
    pairs = []
    for _ in range(6):
        truth = np.kron(rng.choice(20, 4)[rng.integers(4, size=(5, 6))], np.ones((8, 9))).astype(np.uint8)
        truth[rng.random(truth.shape) < 0.1] = VOID
        wrong = rng.random(truth.shape) < 0.3
        noise = rng.integers(0, 20, truth.shape, np.uint8)
        pairs.append((truth, np.where(wrong | (truth == VOID), noise, truth)))
    return pairs


def real() -> list[tuple[LabelMap, LabelMap]]:
    """Photos of PASCAL VOC with the label maps that ESPNetv2 gave."""
    if not DATA.is_dir():
        pytest.skip(f"needs the data folder {DATA}")
    predicted = sorted((DATA / "models/predictions/espnetv2_2.0_384/voc").glob("*.png"))[::64]
    return [(read_label_map(DATA / "voc/SegmentationClass" / p.name), read_label_map(p)) for p in predicted]


def tensors(pair: tuple[LabelMap, LabelMap]) -> tuple[torch.Tensor, torch.Tensor]:
    """Prediction and truth of the pixels that are not void, (1, n) int64 each."""
    truth, prediction = pair
    counted = truth != VOID
    return tuple(torch.from_numpy(m[counted].astype(np.int64))[None] for m in (prediction, truth))  # type: ignore[return-value]


def test_counts_and_ratios_are_those_of_torchmetrics(maps: Maps) -> None:
    jaccard = MulticlassJaccardIndex(CLASSES, average=None, ignore_index=VOID)
    macro = MulticlassJaccardIndex(CLASSES, average="macro", ignore_index=VOID)
    accuracy = MulticlassAccuracy(CLASSES, average="micro", ignore_index=VOID)
    for truth, prediction in maps.pairs:
        both = [torch.from_numpy(m.astype(np.int64)) for m in (prediction, truth)]
        for metric in (jaccard, macro, accuracy):
            metric.update(*both)
    pooled = maps.matrices.sum(axis=0)
    assert (jaccard.confmat.numpy() == pooled[:, :-1]).all()
    assert pixel_accuracy(pooled) == pytest.approx(
        int(accuracy.tp) / int(accuracy.tp + accuracy.fn), abs=1e-9
    )
    assert pixel_accuracy(pooled) == pytest.approx(float(accuracy.compute()), abs=1e-6)
    ours = iou_per_class(pooled)
    theirs = jaccard.compute().numpy()
    assert np.nan_to_num(ours) == pytest.approx(theirs, abs=1e-6)  # they give an absent class 0
    assert dataset_miou(maps.matrices) == pytest.approx(float(macro.compute()), abs=1e-6)


def test_the_mean_image_miou_is_torchmetrics_mean_iou_of_one_image_at_a_time(maps: Maps) -> None:
    theirs = []
    for pair, matrix in zip(maps.pairs, maps.matrices, strict=True):
        metric = MeanIoU(CLASSES, per_class=True, input_format="index")
        iou = metric(*tensors(pair)).numpy()
        present = ~np.isnan(iou_per_class(matrix))
        assert iou[present] == pytest.approx(iou_per_class(matrix)[present], abs=1e-6)
        theirs.append(float(iou[present].mean()))
        assert mean_iou(matrix) == pytest.approx(theirs[-1], abs=1e-6)
    assert image_miou(maps.matrices) == pytest.approx(float(np.mean(theirs)), abs=1e-6)


def test_every_figure_of_the_report_is_mmsegmentations(maps: Maps) -> None:
    areas = [
        [
            area.double()
            for area in IoUMetric.intersect_and_union(torch.tensor(p), torch.tensor(t), CLASSES, VOID)
        ]
        for t, p in maps.pairs
    ]
    pooled = IoUMetric.total_area_to_metrics(*(sum(kind) for kind in zip(*areas, strict=True)))
    found = estimate_all(maps.matrices)
    assert np.array([iou.value for iou in found.per_class]) == pytest.approx(
        pooled["IoU"], abs=1e-9, nan_ok=True
    )
    assert found.dataset_miou.value == pytest.approx(float(np.nanmean(pooled["IoU"])), abs=1e-9)
    assert found.pixel_accuracy.value == pytest.approx(float(pooled["aAcc"]), abs=1e-9)
    each = [np.nanmean(IoUMetric.total_area_to_metrics(*image)["IoU"]) for image in areas]
    assert found.image_miou.value == pytest.approx(float(np.mean(each)), abs=1e-9)
