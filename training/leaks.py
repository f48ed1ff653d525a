"""Images that are tested on and trained on at once, whatever they are called: found before any harm is done.

T(0) and every T(1..i), labelled or not, are quarantined with whatever looks like them (method.md section 5).
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mad_backend.core.grid import Grid
from mad_backend.core.looks import Contents, Twin, find_twins, name_twins, perceptual_hash
from mad_backend.core.records import PoolImage
from mad_backend.engines.local import default_decode_threads
from mad_backend.errors import CorruptFileError, PoolError, TrainingError
from mad_backend.pool.files import read_bytes
from mad_backend.pool.ids import content_digest, image_keys
from mad_backend.pool.images import decode_frame
from mad_backend.pool.ledger import SeenImage
from training.project import Project

log = logging.getLogger(__name__)

LEARNT = ("failures", "failures_dev", "replay")
"""Uses of images, in the record of a fine-tuning, that taught the network a label map, or chose it by one."""


def check_benchmark(project: Project) -> None:
    """Warns of images of T(0) that look like one of S(0) or of what f(0) learnt by `mad finetune`.

    Raises PoolError naming images that are in both, under whatever name: then T(0) says nothing of f(0) either.
    """
    tested = [item.image for item in project.t0]
    twins = leaked(project, images_learnt(project, 0), tested, project.settings.test_set.near_duplicates)
    same = [twin for twin in twins if twin.bits is None]
    if same:
        raise PoolError(
            f"{len(same)} images of t0 are trained on: {name_twins(same)}; what is tested must never be learnt: take "
            "them out of t0, or out of s0"
        )
    if twins:
        log.warning(
            "%d images of t0 look like images that are trained on: %s; those of s0 are left out of training; where "
            "they are different ones, lower test_set.near_duplicates",
            len(twins),
            name_twins(twins),
        )


def quarantined(project: Project, number: int) -> list[Twin]:
    """Images of the pool that may not be chosen in round `number`, in order of the pool: an earlier test set has them.

    That is T(0) or T(1..number-1), by another name or alike; those of T(1..) themselves are not named. What nobody
    has read yet is not found.
    """
    pool = known_contents(project, list(project.pool))
    tested = read_contents(project, images_under_test(project, number - 1))
    twins = find_twins(pool, tested, project.settings.test_set.near_duplicates)
    return [twin for twin in twins if twin.of != twin.image_id]


def refused_for_test(project: Project, number: int, selected: Contents) -> list[Twin]:
    """Images of M that may not be in T(number), in their order: a training set or an earlier test set has them already.

    That is S(0), S(1..number-1), what f(0) learnt by `mad finetune`, T(0) or T(1..number-1), by whatever name or alike.
    """
    known = [*images_learnt(project, number - 1), *images_under_test(project, number - 1)]
    return find_twins(selected, read_contents(project, known), project.settings.test_set.near_duplicates)


def images_learnt(project: Project, number: int) -> list[PoolImage]:
    """S(0), S(1..number) as far as it is in the pool, with label maps or without, and what f(0) learnt by hand."""
    chosen = [f.image_id for n in range(1, number + 1) for f in project.store.choices.failures(n)]
    drawn = [project.pool[i] for i in chosen if i in project.pool]
    return [*(item.image for item in project.s0), *drawn, *learnt_by_hand(project)]


def learnt_by_hand(project: Project) -> list[PoolImage]:
    """Images of which `mad finetune` taught f(0) the label maps, by the record beside its weights; those still there.

    Without such a record, none. Raises CorruptFileError where it cannot be read.
    """
    weights = project.settings.models.target.path
    folders = (weights, weights.parent) if weights else ()
    record = next((folder / "meta.json" for folder in folders if (folder / "meta.json").is_file()), None)
    if record is None:
        return []
    try:
        meta = json.loads(record.read_text(encoding="utf-8"))
        if not {"version", "weights", "data"} <= meta.keys():
            return []  # somebody else's file of that name
        root, lines = (
            Path(meta["data"]["root"]),
            (record.parent / meta["data"]["file"]).read_text(encoding="utf-8"),
        )
        images = [
            (line["use"], line["image_id"], root / line["image"])
            for line in map(json.loads, lines.splitlines())
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CorruptFileError(
            f"{record}, beside the target's weights, does not tell which images they learnt, none of which may be in "
            f"T: {error!r}; restore it, or name weights in a folder without it"
        ) from error
    learnt = {image_id: path for use, image_id, path in images if use in LEARNT}
    return [
        project.pool.get(image_id, PoolImage(image_id, str(path)))
        for image_id, path in learnt.items()
        if image_id in project.pool or path.is_file()
    ]


def images_under_test(project: Project, number: int) -> list[PoolImage]:
    """T(0), dev part and all, T(1..number) and all duels, labelled or not, as far as they are in the pool."""
    drawn = [i for n in range(1, number + 1) for i in project.store.choices.test_set(n)]
    drawn += sorted(project.store.duels.images())
    return [item.image for item in project.t0] + [project.pool[i] for i in drawn if i in project.pool]


def images_to_leave_out(project: Project, number: int, trained: Iterable[PoolImage]) -> set[str]:
    """Ids of images that must not be trained on in a round: T(0) or T(1..number) has them, by another name or alike.

    `trained` are S, S(0) and unlabelled images of the pool. Each is logged. Raises TrainingError where an image of a
    test set itself is among them: that cannot come from a cut.
    """
    tested = images_under_test(project, number)
    found = leaked(project, tested, list(trained), project.settings.test_set.near_duplicates)
    same = [twin for twin in found if twin.of == twin.image_id]
    if same:
        raise TrainingError(
            f"{name_twins(same)} of a test set would be trained on. Where it is in both s0 and t0, take it out of one; "
            "where it is in an S and a T, the store was changed by hand: take it out of S, or `mad cancel` the round"
        )
    if found:
        log.warning("left out of training, since a test set has them: %s", name_twins(found))
    return {twin.image_id for twin in found}


def leaked(
    project: Project, tested: Sequence[PoolImage], trained: Sequence[PoolImage], near: int | None
) -> list[Twin]:
    """Every one of `trained` that is one of `tested`: `find_twins`, with images read that were never, or changed since.

    Raises ImageError for one that cannot be read.
    """
    return find_twins(read_contents(project, trained), read_contents(project, tested), near)


def write_leaks(project: Project, number: int, part: str, twins: Sequence[Twin]) -> None:
    """Logs what was kept out of `part` (M, S or T) of a round, and writes all of it into the workspace's reports."""
    if not twins:
        return
    path = project.settings.workspace / "reports" / f"round-{number:03d}-kept-out-of-{part.lower()}.json"
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps([asdict(twin) for twin in twins], indent=2), encoding="utf-8")
    temporary.replace(path)
    log.warning(
        "round %d: %d images are kept out of %s: %s; all are in %s",
        number,
        len(twins),
        part,
        name_twins(twins),
        path,
    )


def read_contents(project: Project, images: Sequence[PoolImage]) -> Contents:
    """What the images hold now: those that were never read, or changed since, are read, and remembered in the ledger.

    Raises ImageError for one that cannot be read.
    """
    told = project.reader.with_etags(list({i.image_id: i for i in images}.values()))
    ledger = project.open_ledger()
    known = ledger.unchanged(told)
    unknown = [image for image, is_known in zip(told, known.tolist(), strict=True) if not is_known]

    def look_at(image: PoolImage) -> SeenImage:
        return _look(image, project.reader.read(image), project.grid)

    if unknown:
        with ThreadPoolExecutor(default_decode_threads(), thread_name_prefix="leaks") as threads:
            ledger.append(list(threads.map(look_at, unknown)))
    ids = tuple(image.image_id for image in told)
    return Contents(ids, *ledger.content(image_keys(ids)))


def file_contents(files: Mapping[str, Path], grid: Grid) -> Contents:
    """What files of this machine hold, by image id; raises ImageError for one that cannot be read."""

    def look_at(file: tuple[str, Path]) -> SeenImage:
        return _look(PoolImage(file[0], str(file[1])), read_bytes(file[1]), grid)

    with ThreadPoolExecutor(default_decode_threads(), thread_name_prefix="leaks") as threads:
        seen = list(threads.map(look_at, files.items()))
    digests, hashes = [s.digest for s in seen], [s.looks for s in seen]
    return Contents(tuple(files), np.array(digests, np.uint64), np.array(hashes, np.uint64))


def known_contents(project: Project, image_ids: Sequence[str]) -> Contents:
    """What the images held when they were last read, in a scan of the pool."""
    return Contents(tuple(image_ids), *project.open_ledger().content(image_keys(image_ids)))


def _look(image: PoolImage, data: bytes, grid: Grid) -> SeenImage:
    return SeenImage(image, content_digest(data), perceptual_hash(decode_frame(image, data, grid).rgb))
