"""People without a server: an oracle rates, draws and checks straight into the store."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from mad_backend.core.labels import LabelMap
from mad_backend.core.records import Check, HumanMask, ProjectRole, Rating, Verdict
from mad_backend.pool.mask_files import write_mask
from sync.check_project import check_id, drawn_map
from sync.pull import PullProgress
from sync.pull_checks import CheckProgress
from sync.push import PushItem
from training.oracles import Oracle
from training.people import Report
from training.project import Project


class OraclePeople:
    """Does all at once what people would take days for."""

    def __init__(self, project: Project, raters: int) -> None:
        self._project = project
        self._oracle = Oracle.of(project)
        self._raters = [f"rater-{n + 1}" for n in range(raters)]

    def rate(self, number: int, items: Sequence[PushItem], report: Report) -> PullProgress:
        ratings = []
        for done, item in enumerate(items):
            label_map = item.load()[1]
            for order, rater in enumerate(self._raters):
                score = self._oracle.opinion(item.image_id, rater, label_map)
                at = datetime.fromtimestamp(done, UTC)
                ratings.append(Rating(item.image_id, rater, score, done * len(self._raters) + order, at))
            report("rating", done + 1, len(items))
        self._project.store.remote.record_ratings(number, ratings)
        return PullProgress(len(items), len(items), dict.fromkeys(self._raters, len(items)))

    def label(
        self, number: int, items: Sequence[PushItem], model_version: str, report: Report
    ) -> PullProgress:
        for done, item in enumerate(items):
            key = self._project.store.remote.item_key(number, ProjectRole.SEGMENTATION, item.image_id)
            path, digest = self._write(number, key, self._oracle.drawing(item.image_id))
            mask = HumanMask(item.image_id, path, digest, self._raters[done % len(self._raters)], done)
            self._project.store.remote.record_mask(number, mask)
            report("drawing", done + 1, len(items))
        return PullProgress(len(items), len(items), {})

    def check(self, number: int, items: Sequence[PushItem], report: Report) -> CheckProgress:
        store = self._project.store
        masks = store.remote.masks(number)
        for done, item in enumerate(items):
            mask = masks[item.image_id]
            drawn, truth = drawn_map(mask), self._oracle.drawing(item.image_id)
            checker = next((who for who in self._raters if who != mask.annotator), "somebody else")
            at = datetime.fromtimestamp(done, UTC)
            check = Check(item.image_id, mask.sha256, Verdict.ACCEPTED, checker, at)
            errors = self._oracle.errors(item.image_id, drawn)
            if errors:
                key = store.remote.item_key(number, ProjectRole.CHECK, check_id(mask))
                path, digest = self._write(number, key, truth)
                share = float((drawn != truth).mean())
                check = replace(
                    check,
                    verdict=Verdict.CORRECTED,
                    errors=errors,
                    changed_share=share,
                    path=path,
                    sha256=digest,
                )
            store.checks.record(number, check)
            report("checking", done + 1, len(items))
        return CheckProgress(len(items), len(items), {})

    def _write(self, number: int, key: str, label_map: LabelMap) -> tuple[str, str]:
        """(path, SHA-256) of an index PNG."""
        path = self._project.masks_root / f"round-{number:03d}" / f"{key}.png"
        return str(path), write_mask(path, label_map)
