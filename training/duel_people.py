"""A duel's images at Label Studio: a project of its own, where annotators begin from nothing.

What is known of it lies in a database of the duel's own, as its round 1: rounds of the project are not touched.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from mad_backend.core.duel import Duel
from mad_backend.core.labels import LabelMap, RgbImage
from mad_backend.errors import StoreError
from mad_backend.pool.sources import LabelledImage
from mad_backend.pool.truths import Truth
from mad_backend.settings import SegmentationSettings
from mad_backend.store.store import Store
from sync.client import LabelStudioClient
from sync.hosts import picture_host
from sync.pull import PullProgress
from sync.pull_masks import pull_masks
from sync.push import PushItem
from sync.segmentation_project import Starting, push_segmentation
from training.duel import duel_folder
from training.project import Project

ROUND = 1
_TITLE = 50
"""Letters that Label Studio takes."""
_EMPTY = SegmentationSettings(start_from="none")


def ask_people(project: Project, duel: Duel, client: LabelStudioClient) -> PullProgress:
    """Sends what is missing of the duel's images, without any model's label map, and fetches what was drawn.

    May be repeated at any time. Raises LabelStudioError, and StoreError where an image left the pool.
    """
    gone = [image.image_id for image in duel.images if image.image_id not in project.pool]
    if gone:
        raise StoreError(
            f"{len(gone)} images of the duel {duel.title} are no longer in the pool, e.g. {gone[0]}; bring them back"
        )
    with duel_store(project, duel) as store:
        push_segmentation(
            client,
            store,
            ROUND,
            f"Duel {duel.title}"[:_TITLE],
            project.labels,
            [
                PushItem(i.image_id, partial(_photo, project, i.image_id), project.pool[i.image_id].path)
                for i in duel.images
            ],
            model_version="",
            report=lambda _done, _total: None,
            # By the project's own store, whose signatures `mad serve` knows.
            host=picture_host(project.settings, project.store, client),
            starting=_from_nothing,
            settings=_EMPTY,
        )
        return pull_masks(
            client,
            store,
            ROUND,
            project.labels,
            size_of=lambda image_id: project.reader.size(project.pool[image_id]),
            root=duel_folder(project, duel) / "masks",
        )


def people_labels(project: Project, duel: Duel) -> list[LabelledImage]:
    """Those of the duel's images that people have drawn, in the order of the duel."""
    if not _database(project, duel).exists():
        return []
    with duel_store(project, duel) as store:
        masks = store.remote.masks(ROUND)
    return [
        LabelledImage(project.pool[i.image_id], Truth(Path(masks[i.image_id].path)))
        for i in duel.images
        if i.image_id in masks and i.image_id in project.pool
    ]


@contextmanager
def duel_store(project: Project, duel: Duel) -> Iterator[Store]:
    """What is known of the duel's project at Label Studio, as of round `ROUND`."""
    store = Store(f"sqlite:///{_database(project, duel)}")
    try:
        store.rounds.create(ROUND, duel.seed, duel.created_at)
        yield store
    finally:
        store.close()


def _database(project: Project, duel: Duel) -> Path:
    return duel_folder(project, duel) / "people.sqlite3"


def _photo(project: Project, image_id: str) -> tuple[RgbImage, LabelMap]:
    rgb = project.reader.rgb(project.pool[image_id])
    return rgb, np.zeros(rgb.shape[:2], np.uint8)


def _from_nothing(_image_id: str, _label_map: LabelMap) -> Starting:
    return Starting(None)
