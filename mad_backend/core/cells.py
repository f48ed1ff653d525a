"""The cells of Eq. (2) for one competitor and role: they see scores pass by and keep the best.

Imported late by its users, since its kernels are compiled.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, assert_never

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.id_column import IdColumn
from mad_backend.core.records import Metric, Role
from mad_backend.core.scores import PairScores
from mad_backend.core.selection import Window
from mad_backend.core.selection_kernels import Ids, Ranks, Rows, Rules, find_barred, hash_table, keep, offer

SPARE: Final = 4
"""Places by the number of images wanted, where near-duplicates may take some."""


@dataclass
class BestImages:
    """What one cell chose, in order of rank; the counts are those of `Cell`."""

    image_ids: list[str] = field(default_factory=list)
    discrepancies: list[float] = field(default_factory=list)
    eligible: int = 0
    tied: int = 0
    near_duplicates: int = 0


class BarredImages:
    """Images that may not be chosen."""

    def __init__(self, image_ids: Collection[str]) -> None:
        self._ids = _frozen_ids(image_ids)
        self._table = hash_table(self._ids)

    def rows(self, ids: Ids) -> NDArray[np.bool_]:
        """(n,) which of n images are barred."""
        found = np.zeros(len(ids.offsets) - 1, np.bool_)
        if len(self._ids.offsets) > 1:
            find_barred(ids, self._ids, self._table, found)
        return found


class PairCells:
    """One cell per class of `windows`, which wants `n3` images; `near_duplicates` as for `select`."""

    def __init__(self, windows: Mapping[int, Window], n3: int, near_duplicates: int | None) -> None:
        self._class_ids = tuple(windows)
        self._n3 = n3
        self._near = -1 if near_duplicates is None else near_duplicates
        self._best = [BestImages() for _ in windows]
        cell_of = np.full(256, len(windows), np.int16)
        cell_of[list(windows)] = np.arange(len(windows))
        count = len(windows) + 1
        self._rules = Rules(
            cell_of,
            np.array([*(w.low for w in windows.values()), np.inf]),
            np.array([*(w.high for w in windows.values()), -np.inf]),
            self._near,
            np.zeros((count, n3), np.uint64),
            np.zeros(count, np.int64),
        )
        shape = (count, n3 if near_duplicates is None else n3 * SPARE)
        self._ranks = Ranks(
            discrepancy=np.zeros(shape, np.float64),
            row=np.zeros(shape, np.int64),
            looks=np.zeros(shape, np.uint64),
            held=np.zeros(count, np.int64),
            eligible=np.zeros(count, np.int64),
            tied=np.zeros(count, np.int64),
            cut=np.full(count, -np.inf),
        )
        self._kept = _no_ids()

    def offer(self, rows: Rows) -> None:
        """Shows images to all cells that are not settled."""
        offer(rows, self._rules, self._ranks, self._kept)
        self._kept = Ids(*keep(rows, self._ranks, self._kept))

    def settle(self) -> bool:
        """To be called once all images were shown; False when they must be shown again.

        That is when a cell ran out of images that look different while it had more than it could hold.
        """
        for cell, class_id in enumerate(self._class_ids):
            if self._rules.cell_of[class_id] == cell and self._take(cell):
                self._rules.cell_of[class_id] = len(self._class_ids)
        self._ranks.held[:] = 0
        self._ranks.tied[:] = 0
        self._ranks.cut[:] = -np.inf
        self._kept = _no_ids()
        return bool((self._rules.cell_of == len(self._class_ids)).all())

    def best(self, class_id: int) -> BestImages:
        """What the cell of a class chose, once all are settled."""
        return self._best[self._class_ids.index(class_id)]

    def _take(self, cell: int) -> bool:
        """Takes held images in order of rank; True when no other can follow."""
        ranks, best = self._ranks, self._best[cell]
        held, places = int(ranks.held[cell]), ranks.row.shape[1]
        d, looks = ranks.discrepancy[cell, :held], ranks.looks[cell, :held]
        ids = IdColumn(*self._kept)
        before = len(best.image_ids)
        is_first = before == 0
        if is_first:
            best.eligible = int(ranks.eligible[cell])
        for place in range(held):
            if self._near >= 0 and self._looks_taken(cell, looks[place]):
                best.near_duplicates += is_first and place < self._n3
                continue
            if len(best.image_ids) == self._n3:
                break
            if self._near >= 0:
                self._rules.taken_looks[cell, len(best.image_ids)] = looks[place]
                self._rules.taken[cell] += 1
            best.image_ids.append(ids[-1 - int(ranks.row[cell, place])])
            best.discrepancies.append(float(d[place]))
        if len(best.image_ids) < self._n3:
            return held < places
        last = best.discrepancies[-1]
        best.tied = int((d == last).sum()) - best.discrepancies[before:].count(last)
        if d[-1] == last:
            best.tied += int(ranks.tied[cell])
        return True

    def _looks_taken(self, cell: int, look: np.uint64) -> bool:
        taken = self._rules.taken_looks[cell, : self._rules.taken[cell]]
        return bool((np.bitwise_count(taken ^ look) <= self._near).any())


def rows_of(scores: PairScores, metric: Metric, barred: BarredImages) -> Iterator[tuple[Role, Rows]]:
    """The same images as the sub-pools of either role see them."""
    match metric:
        case Metric.MIOU:
            discrepancy = scores.miou
        case Metric.PIXEL_AGREEMENT:
            discrepancy = scores.pixel_agreement
        case _:
            assert_never(metric)
    ids = _frozen_ids(scores.image_ids)
    is_barred = _frozen(barred.rows(ids), np.bool_)
    for role, areas in ((Role.TARGET, scores.target), (Role.COMPETITOR, scores.competitor)):
        rows = Rows(
            _frozen(areas.offsets, np.int32),
            _frozen(areas.class_ids, np.uint8),
            _frozen(areas.pixels, np.uint32),
            _frozen(scores.pixels, np.uint32),
            _frozen(discrepancy, np.float64),
            _frozen(scores.looks, np.uint64),
            ids,
            is_barred,
        )
        yield role, rows


def _frozen(array: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """The same numbers, contiguous and read-only: one compiled kernel serves all."""
    view = np.ascontiguousarray(array, dtype).view()
    view.flags.writeable = False
    return view


def _frozen_ids(image_ids: Iterable[str]) -> Ids:
    column = IdColumn.of(image_ids)
    return Ids(_frozen(column.offsets, np.int32), _frozen(column.text, np.uint8))


def _no_ids() -> Ids:
    return Ids(np.zeros(1, np.int32), np.zeros(0, np.uint8))
