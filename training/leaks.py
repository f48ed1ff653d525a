"""Images that are tested on and trained on at once, whatever they are called: found before anything is trained."""

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mad_backend.core.looks import perceptual_hash
from mad_backend.core.records import PoolImage
from mad_backend.engines.local import default_decode_threads
from mad_backend.errors import TrainingError
from mad_backend.pool.ids import content_digest, image_keys
from mad_backend.pool.images import decode_frame
from mad_backend.pool.ledger import SeenImage
from training.project import Project

log = logging.getLogger(__name__)

NAMED = 5
"""Pairs that a message names."""


@dataclass(frozen=True)
class Leak:
    """An image that is trained on, and the one of a test set that it is, or looks like in all but `bits` of 64 bits."""

    tested: str
    trained: str
    bits: int | None

    def __str__(self) -> str:
        if self.tested == self.trained:
            return self.trained
        how = "is the same file as" if self.bits is None else f"looks like ({self.bits} of 64 bits differ)"
        return f"{self.trained} {how} {self.tested}"


def images_under_test(project: Project, number: int) -> list[PoolImage]:
    """T(0), dev part and all, and T(1..number), with a label map or without, as far as they are in the pool."""
    drawn = [i for n in range(1, number + 1) for i in project.store.choices.test_set(n)]
    return [item.image for item in project.t0] + [project.pool[i] for i in drawn if i in project.pool]


def images_to_leave_out(project: Project, number: int, trained: Iterable[PoolImage]) -> set[str]:
    """Ids of images that must not be trained on in a round: T(0) or T(1..number) has them, by another name.

    `trained` are S, S(0) and unlabelled images of the pool. Each is logged. Raises TrainingError where an image of a
    test set itself is among them: that cannot come from a cut.
    """
    found = leaked(
        project, images_under_test(project, number), list(trained), project.settings.selection.near_duplicates
    )
    same = [leak for leak in found if leak.tested == leak.trained]
    if same:
        raise TrainingError(
            f"{_named(same)} of a test set would be trained on. Where it is in both s0 and t0, take it out of one; "
            "where it is in an S and a T, the store was changed by hand: take it out of S, or `mad cancel` the round"
        )
    if found:
        log.warning("round %d: left out of training, since a test set has them: %s", number, _named(found))
    return {leak.trained for leak in found}


def leaked(
    project: Project, tested: Sequence[PoolImage], trained: Sequence[PoolImage], near_duplicates: int | None
) -> list[Leak]:
    """Every trained image that is a tested one, by id or content, or looks like one in all but `near_duplicates` bits.

    In the order of `trained`, one leak an image: the first tested image of those that differ least. Images that
    were never read, or changed since, are read now, and remembered in the ledger. Raises ImageError for one that
    cannot be read.
    """
    _read_unknown(project, [*tested, *trained])
    ledger = project.open_ledger()
    keys = image_keys(i.image_id for i in tested)
    contents, looks = ledger.content(keys)
    ids = {image.image_id for image in tested}
    by_content = dict(zip(contents.tolist()[::-1], [i.image_id for i in tested][::-1], strict=True))
    found = []
    own = zip(trained, *ledger.content(image_keys(i.image_id for i in trained)), strict=True)
    for image, content, look in own:
        if image.image_id in ids:
            found.append(Leak(image.image_id, image.image_id, None))
        elif int(content) in by_content:
            found.append(Leak(by_content[int(content)], image.image_id, None))
        elif near_duplicates is not None and len(tested):
            bits = np.bitwise_count(looks ^ look)
            nearest = int(bits.argmin())
            if bits[nearest] <= near_duplicates:
                found.append(Leak(tested[nearest].image_id, image.image_id, int(bits[nearest])))
    return found


def _read_unknown(project: Project, images: Sequence[PoolImage]) -> None:
    """Reads what the ledger does not know as it is now: in the first round, all of S(0)."""
    told = project.reader.with_etags(list({i.image_id: i for i in images}.values()))
    ledger = project.open_ledger()
    known = ledger.unchanged(told)
    unknown = [image for image, is_known in zip(told, known.tolist(), strict=True) if not is_known]
    if not unknown:
        return

    def look_at(image: PoolImage) -> SeenImage:
        data = project.reader.read(image)
        frame = decode_frame(image, data, project.grid)
        return SeenImage(image, content_digest(data), perceptual_hash(frame.rgb))

    with ThreadPoolExecutor(default_decode_threads(), thread_name_prefix="leaks") as threads:
        ledger.append(list(threads.map(look_at, unknown)))


def _named(leaks: Sequence[Leak]) -> str:
    more = f" and {len(leaks) - NAMED} more" if len(leaks) > NAMED else ""
    return ", ".join(str(leak) for leak in leaks[:NAMED]) + more
