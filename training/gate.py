"""The gate's decision in a round, from what was measured of the versions (method.md section 7)."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.records import ModelVersion
from mad_backend.core.rounds import Round
from mad_backend.errors import StoreError
from training.evaluate import T0, ImageSet, current_matrices, failure_sets, image_sets, target_versions
from training.failure_suite import Tried, drawn_miou, failure_suite
from training.project import Project
from training.promotion import Decision, PairedSet, decide

Matrices: TypeAlias = Mapping[tuple[str, str], NDArray[np.int64]]
"""(version, image set) -> (n, C, C + 1), as `current_matrices` gives them."""


def judge(project: Project, found: Round) -> Decision:
    """Compares f(i) of the round with the version that is served now: on T(0), on T(1..i), and on the failure suite.

    What is served may be another version than the round started from: somebody may have rolled back meanwhile. Raises
    StoreError naming what was not measured.
    """
    after = next(v for v in project.store.versions.all() if v.round_number == found.number)
    served = project.store.versions.promoted()
    before = served if served and served.version != after.version else project.target_of(found)
    tests = image_sets(project, found.number)
    failures = failure_sets(project, found.number)
    matrices = current_matrices(project, target_versions(project), [*tests, *failures])
    _check_measured(matrices, [before.version, after.version], [*tests, *failures])
    paired = {
        s.name: PairedSet(s.name, matrices[before.version, s.name], matrices[after.version, s.name])
        for s in tests
    }
    nothing = np.zeros((0, len(project.labels), len(project.labels) + 1), np.int64)
    tried = [_tried(project, s, matrices, before, after) for s in [*failures, *tests] if s.name != T0]
    return decide(
        before.version,
        after.version,
        paired.pop(T0, PairedSet(T0, nothing, nothing)),
        list(paired.values()),
        failure_suite([t for t in tried if t], project.settings.promotion.suite_tolerance),
        project.settings.promotion,
        project.labels,
        project.counted_classes,
    )


def _check_measured(matrices: Matrices, versions: Sequence[str], sets: Sequence[ImageSet]) -> None:
    missing = [f"{v} on {s.name}" for v in versions for s in sets if (v, s.name) not in matrices]
    if missing:
        raise StoreError(
            f"the gate cannot compare: {', '.join(missing)} was not measured; where a model's files are gone, put them "
            "back and `mad retry`, or decide by hand with `mad promote`"
        )


def _tried(
    project: Project, image_set: ImageSet, matrices: Matrices, before: ModelVersion, after: ModelVersion
) -> Tried | None:
    """What versions made of an S or T; None where the version that failed on it cannot be measured any more."""
    number = int(image_set.name[2:-1])
    failed = project.store.rounds.get(number).target or ""
    if (failed, image_set.name) not in matrices:
        return None

    def score(version: str) -> NDArray[np.float64]:
        return drawn_miou(matrices[version, image_set.name], project.counted_classes)

    fixers = [
        v.version
        for v in project.store.versions.all()
        if v.promoted_at and v.round_number >= number and v.version != after.version
    ]
    return Tried(
        image_set.name,
        [item.image.image_id for item in image_set.items],
        score(failed),
        {version: score(version) for version in fixers if (version, image_set.name) in matrices},
        score(before.version),
        score(after.version),
    )
