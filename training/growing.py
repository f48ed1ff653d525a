"""A test set that people label until the ranking of the models on it is stable (Fig. 7), in waves mixed with S.

What was sent and what was drawn is all in the store, so that a process that is killed goes on where it was.
"""

import logging
from collections.abc import Iterator, Sequence

from mad_backend.core.records import ProjectRole
from mad_backend.core.stability import stability_curve, stable_from
from mad_backend.pool.ids import image_key
from training.evaluate import competing_models, image_sets, matrices_of, target_versions
from training.project import Project

log = logging.getLogger(__name__)


def waves(project: Project, number: int) -> Iterator[list[str]]:
    """Images of S and T that people are to have, by image id; more each time, once all before were labelled.

    Mixed by image id: nothing in the order tells an annotator which is which. Every wave of a growing T takes some of S
    along, so that a late task is as often one of S.
    """
    settings, drawn = project.settings.test_set, project.store.choices.test_set(number)
    failures = [f.image_id for f in project.store.choices.failures(number)]
    out = len(drawn)
    if settings.size == "stable":
        out = _out(drawn, _sent(project, number), settings.smallest, settings.step)
        while out < len(drawn):
            yield sorted([*drawn[:out], *_without_last(failures, len(drawn) - out, _sent(project, number))])
            if ranking_is_stable(project, number):
                break
            out += settings.step
    yield sorted([*drawn[:out], *failures])


def images_with_people(project: Project, number: int) -> list[str]:
    """S, and T as far as it was sent, by image id."""
    drawn, sent = project.store.choices.test_set(number), _sent(project, number)
    failures = [f.image_id for f in project.store.choices.failures(number)]
    if project.settings.test_set.size == "stable":
        drawn = [image_id for image_id in drawn if image_id in sent]
    return sorted([*drawn, *failures])


def ranking_is_stable(project: Project, number: int) -> bool:
    """Whether the last two steps by which T(number) grew left the ranking of the models as it was: SRCC 0.95 or more.

    By Fig. 7's measure at every size since. Models that differ little among the images, and so could change places,
    keep T growing: on 400 drawn worlds of six models as far apart as those of Table 1, T grew to 53 images on average,
    with four clearly different models to 22. Of competing models and versions of the target those count that have
    label maps of all of T as labelled so far; fewer than two have no ranking, which is never stable.
    """
    items = next((s.items for s in image_sets(project, number) if s.name == f"T({number})"), ())
    matrices = {}
    for model in [*competing_models(project), *target_versions(project)]:
        with project.predictions.open(model.key) as pack:
            has_all = all(item.image.image_id in pack for item in items)
        if items and has_all:
            matrices[model.name] = matrices_of(project, model.key, items)
    if len(matrices) < 2:
        return False
    sizes = range(max(1, len(items) - 2 * project.settings.test_set.step), len(items) + 1)
    curve = stability_curve(matrices, project.counted_classes, sizes)
    is_stable = stable_from(curve, running=len(curve)) is not None
    log.info(
        "round %d: on %d images of T the ranking of %d models is %s; SRCC of sizes %d to %d with it is %.3f at least",
        number,
        len(items),
        len(matrices),
        "stable" if is_stable else "not stable yet",
        sizes[0],
        sizes[-1],
        min(point.srcc for point in curve),
    )
    return is_stable


def _sent(project: Project, number: int) -> set[str]:
    """What people have, or have drawn."""
    store = project.store
    return {*store.remote.tasks(number, ProjectRole.SEGMENTATION), *store.remote.masks(number)}


def _out(drawn: Sequence[str], sent: set[str], smallest: int, step: int) -> int:
    """How many of T, in the order drawn, people have or were about to get: a wave that was half sent is sent whole."""
    last = max((n for n, image_id in enumerate(drawn, start=1) if image_id in sent), default=0)
    started = max(0, -(-(last - smallest) // step))
    return min(len(drawn), smallest + started * step)


def _without_last(failures: Sequence[str], reserve: int, sent: set[str]) -> list[str]:
    """S without as many images as T may still grow by, at most half of it; which ones has nothing to do with scores."""
    held = min(reserve, len(failures) // 2)
    blind = sorted(failures, key=image_key)
    return [image_id for n, image_id in enumerate(blind) if n < len(blind) - held or image_id in sent]
