"""Results are the means and differences of what trials hold, by hand."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from mad_backend.core.labels import LabelClass, LabelSet
from mad_backend.core.statistics import estimate_difference
from mad_backend.errors import CorruptFileError
from mad_backend.settings import PromotionSettings
from training.simulation.pooled import gain_over_images, lead_over_images
from training.simulation.records import MATRICES, RoundRecord, Trial, TrialRecord
from training.simulation.results import Point, Spread, gather, labels_at
from training.simulation.tables import tables_of
from training.simulation.world import World

LABELS = LabelSet("two", (LabelClass("sky", (0, 0, 0)), LabelClass("cat", (1, 1, 1))))
WORLD = cast(
    "World",
    SimpleNamespace(
        labels=LABELS, counted_classes=None, settings=SimpleNamespace(promotion=PromotionSettings())
    ),
)


def right(share: float, images: int = 6) -> np.ndarray:
    """(n, 2, 3) of 100 pixels of either class, `share` of them right: the IoU of both is share / (2 - share)."""
    good = round(100 * share)
    return np.repeat(np.array([[[good, 100 - good, 0], [100 - good, good, 0]]], np.int64), images, axis=0)


def trial(strategy: str, seed: int, after: float, chosen: tuple[str, ...] = ("x", "y")) -> Trial:
    record = TrialRecord(
        strategy, seed, "print", "f@0", ("g",),
        (RoundRecord(1, "f@0", "f@1", 9, ("t",), chosen, 6, 1800, 1800),),
        {"f@0": None, "f@1": "weights"},
        {"S(1)": chosen, "T(0)": tuple("uvwxyz"), **{s: tuple(f"{c}{seed}" for c in "abcdef") for s in ("W", "T(1)")}},
        10.0,
    )  # fmt: skip
    sets = {"W": 6, "T(0)": 6, "T(1)": 6, "S(1)": len(chosen)}
    shares = {"f@0": 0.5, "f@1": after, "g": 0.8}
    return Trial(
        record,
        {(model, name): right(share, n) for model, share in shares.items() for name, n in sets.items()},
    )


TRIALS = [
    trial("mad", 0, 0.9),
    trial("random", 0, 0.6, ("y", "z")),
    trial("mad", 1, 0.8),
    trial("random", 1, 0.7),
]


def iou(share: float) -> float:
    return share / (2 - share)


def test_points_are_means_over_seeds_after_labels_and_hours() -> None:
    found = gather(TRIALS, WORLD, None)
    assert found.strategies == ("mad", "random")
    (last,) = [p for p in found.points if (p.strategy, p.image_set, p.number) == ("mad", "W", 1)]
    assert last.miou.values == pytest.approx((iou(0.9), iou(0.8)))
    assert last.miou.mean == pytest.approx((iou(0.9) + iou(0.8)) / 2)
    assert last.gain.mean == pytest.approx(last.miou.mean - iou(0.5))
    assert (last.labels, last.hours) == (2, 1.0)
    (first,) = [p for p in found.points if (p.strategy, p.image_set, p.number) == ("random", "T(0)", 0)]
    assert (first.labels, first.hours, first.gain.mean) == (0, 0, 0)


def test_a_lead_is_paired_by_seed() -> None:
    found = gather(TRIALS, WORLD, None)
    differences = {lead.image_set: lead.difference.values for lead in found.leads}
    assert set(differences) == {"W", "T(0)", "T(1)"}
    assert differences["W"] == pytest.approx((iou(0.9) - iou(0.6), iou(0.8) - iou(0.7)))
    assert found.lead_over_best["T(1)"].values == pytest.approx((iou(0.9) - iou(0.8), 0))


def test_an_image_of_several_seeds_is_one_image_of_them_all() -> None:
    seeds = [trial("mad", 0, 0.9), trial("mad", 1, 0.8)]
    # T(0) has the same six images under both seeds, W six of each.
    after = np.concatenate([t.matrices["f@1", "W"] for t in seeds])
    before = np.concatenate([t.matrices["f@0", "W"] for t in seeds])
    assert gain_over_images(seeds, 1, "W", None) == estimate_difference(after, before)
    summed = estimate_difference(after[:6] + after[6:], before[:6] + before[6:])
    found = gain_over_images(seeds, 1, "T(0)", None)
    assert found == summed
    assert found.value == pytest.approx(iou(0.85) - iou(0.5))


def test_a_lead_over_images_is_paired_by_image_and_told_beside_the_one_over_seeds() -> None:
    rng = np.random.default_rng(3)

    def varied(t: Trial, hard: np.ndarray, by: float) -> Trial:
        part = np.concatenate([right(h - by, 1) for h in hard])
        return replace(t, matrices={**t.matrices, ("f@1", "W"): part})

    hard = [rng.uniform(0.3, 0.9, 6) for _ in range(2)]
    mad = [varied(TRIALS[0], hard[0], 0), varied(TRIALS[2], hard[1], 0)]
    random = [varied(TRIALS[1], hard[0], 0.05), varied(TRIALS[3], hard[1], 0.05)]
    found = lead_over_images(mad, random, 1, "W", None)
    assert 0 < found.low < found.value < found.high, "images differ by far more than the two versions do"
    results = gather([*mad, *random], WORLD, None)
    assert next(lead for lead in results.leads if lead.image_set == "W").over_images == found
    (table,) = [t for t in tables_of(results, []) if "over images" in t.title]
    assert [row[0] for row in table.rows] == ["mad", "random", "mad - random"]
    assert table.rows[2][1] == f"{100 * found.value:+.2f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def test_gains_and_leads_are_told_after_every_round() -> None:
    def two_rounds(strategy: str, first: float, second: float) -> Trial:
        one = trial(strategy, 0, first)
        (began,) = one.record.rounds
        record = replace(
            one.record,
            rounds=(began, replace(began, number=2, started_from="f@1", version="f@2")),
            paths={**one.record.paths, "f@2": "weights"},
            sets={**one.record.sets, "T(2)": tuple("ghijkl"), "S(2)": ("x", "y")},
        )
        shares = {"f@0": 0.5, "f@1": first, "f@2": second, "g": 0.8}
        sizes = {name: len(images) for name, images in record.sets.items()}
        return Trial(
            record, {(m, s): right(share, n) for m, share in shares.items() for s, n in sizes.items()}
        )

    found = gather([two_rounds("mad", 0.8, 0.9), two_rounds("random", 0.6, 0.9)], WORLD, None)
    on_w = {lead.number: lead.difference.mean for lead in found.leads if lead.image_set == "W"}
    assert on_w == pytest.approx({1: iou(0.8) - iou(0.6), 2: 0.0})
    over_images = {lead.number: lead.over_images.value for lead in found.leads if lead.image_set == "T(1)"}
    assert over_images == pytest.approx(on_w)
    tables = tables_of(found, [])
    (gains,) = [t for t in tables if t.title.startswith("f(i) - f(0)")]
    assert [row[0] for row in gains.rows] == ["mad, f(1)", "random, f(1)", "mad, f(2)", "random, f(2)"]
    assert [row[1] for row in gains.rows] == ["2", "2", "4", "4"]
    (leads,) = [t for t in tables if t.title.startswith("Lead")]
    assert [row[0] for row in leads.rows] == ["mad - random, f(1)", "mad - random, f(2)"]


def test_an_interval_over_seeds_is_students() -> None:
    from scipy import stats

    values = [1.0, 2.0, 4.0]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (Spread.of(values).low, Spread.of(values).high) == pytest.approx((low, high), rel=1e-3)
    assert np.isnan(Spread.of([1.0]).low)


def test_findings_tell_failures_confusions_and_what_is_shared() -> None:
    mad, random = gather(TRIALS, WORLD, None).findings
    assert mad.failed.mean == 1.0  # IoU .33 on every image of S
    assert mad.shared.mean == 1.0
    assert random.shared.values == (0.5, 1.0)
    assert {(p.truth, p.prediction): p.share for p in mad.pairs} == {("sky", "cat"): 0.5, ("cat", "sky"): 0.5}


def test_the_gate_is_asked_of_every_version() -> None:
    worse = [trial("mad", 0, 0.4), trial("mad", 1, 0.9)]
    assert gather(worse, WORLD, None).promoted == {"mad": (1,)}


def test_labels_to_a_goal_lie_on_the_mean_curve() -> None:
    found = gather(TRIALS, WORLD, (iou(0.5) + iou(0.6)) / 2)
    start, end = iou(0.5), (iou(0.6) + iou(0.7)) / 2
    assert found.labels_to_goal["random"] == pytest.approx(2 * (found.goal - start) / (end - start))
    curve = [p for p in found.points if (p.strategy, p.image_set) == ("random", "W")]
    assert labels_at(cast("list[Point]", curve), 0.99) is None
    assert labels_at(cast("list[Point]", curve), 0.1) == 0
    assert any("not reached" in row for t in tables_of(gather(TRIALS, WORLD, 0.99), []) for row in t.rows)


def test_a_trial_is_read_as_it_was_written_and_a_torn_one_is_told(tmp_path: Path) -> None:
    assert Trial.read(tmp_path) is None
    TRIALS[0].write(tmp_path)
    found = Trial.read(tmp_path)
    assert found
    assert found.record == TRIALS[0].record
    assert {k: v.tolist() for k, v in found.matrices.items()} == {
        k: v.tolist() for k, v in TRIALS[0].matrices.items()
    }
    (tmp_path / MATRICES).write_bytes((tmp_path / MATRICES).read_bytes()[:100])
    with pytest.raises(CorruptFileError, match=str(tmp_path)):
        Trial.read(tmp_path)
