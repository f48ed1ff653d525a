"""Where author and checker of a label map disagree, and how ops settle it."""

from dataclasses import dataclass, replace
from datetime import datetime

from mad_backend.core.checks import current_checks, dropped_images
from mad_backend.core.records import Check, HumanMask, ProjectRole, Verdict
from mad_backend.core.rounds import RoundState
from mad_backend.errors import StoreError
from mad_backend.store.store import Store
from sync.check_project import check_id

TAKES = {"author": Verdict.AUTHOR, "checker": Verdict.CHECKER, "drop": Verdict.DROPPED}
"""What `mad settle --take` understands."""

_OUTCOMES = {
    Verdict.CORRECTED: "the checker's label map counts",
    Verdict.REJECTED: "open: the author draws again, or `mad settle`",
    Verdict.AUTHOR: "settled: the author's label map counts",
    Verdict.CHECKER: "settled: the checker's label map counts",
    Verdict.DROPPED: "settled: the image is dropped",
}


@dataclass(frozen=True)
class Disagreement:
    """One label map that was not accepted as drawn; `outcome` is what counts now, in words.

    `changed_share` is the share of pixels that the checker changed, None where the checker's map could not be read or
    nobody looked. `drawing` and `checking` are the addresses of the two tasks, None for tasks that are no more.
    """

    image_id: str
    verdict: Verdict
    errors: tuple[str, ...]
    changed_share: float | None
    author: str
    checker: str
    outcome: str
    is_open: bool
    notes: tuple[str, ...]
    drawing: str | None
    checking: str | None


def disagreements(store: Store, number: int, url: str) -> list[Disagreement]:
    """Every label map of the round that was corrected, rejected or settled; open ones first, then by image id.

    `url` is where people find Label Studio.
    """
    masks, checks = store.remote.masks(number), store.checks.all(number)
    current = current_checks(masks, checks)
    places = _Places.of(store, number, url)
    found = []
    for check in checks:
        if check.verdict is Verdict.ACCEPTED:
            continue
        mask = masks.get(check.image_id)
        is_current = current.get(check.image_id) == check or check.verdict is Verdict.DROPPED
        found.append(
            Disagreement(
                image_id=check.image_id,
                verdict=check.verdict,
                errors=tuple(check.errors),
                changed_share=check.changed_share,
                author=mask.annotator if mask else "",
                checker=check.checker,
                outcome=_OUTCOMES[check.verdict] if is_current else "drawn anew since",
                is_open=is_current and check.verdict is Verdict.REJECTED,
                notes=check.notes,
                drawing=places.drawing(check.image_id),
                checking=places.checking(mask) if mask and is_current else None,
            )
        )
    return sorted(found, key=lambda d: (not d.is_open, d.image_id))


def settle(store: Store, number: int, image_id: str, take: str, now: datetime) -> Check:
    """Ends the dispute about one label map: the author's counts, the checker's counts, or the image is left out.

    Returns what is recorded, which no later answer changes; another `settle` does, as long as the round is being
    checked. Raises StoreError where that is over, and for an image or a label map that is not there.
    """
    if take not in TAKES:
        raise StoreError(f'"{take}" cannot be taken; wanted one of {", ".join(TAKES)}')
    verdict = TAKES[take]
    found = store.rounds.get(number)
    if RoundState.CHECKING not in (found.state, found.came_from):
        raise StoreError(f"round {number} is {found.state}; label maps are settled while it is checking")
    if image_id not in _images(store, number):
        raise StoreError(
            f'image "{image_id}" is neither in S nor in T of round {number}; `mad disagreements` lists'
        )
    check = _settled(store, number, image_id, verdict, now)
    store.checks.settle(number, check)
    store.remote.want_pull()
    return check


def _settled(store: Store, number: int, image_id: str, verdict: Verdict, now: datetime) -> Check:
    masks, checks = store.remote.masks(number), store.checks.all(number)
    mask, before = masks.get(image_id), current_checks(masks, checks).get(image_id)
    if mask is None and verdict is not Verdict.DROPPED:
        raise StoreError(f'image "{image_id}" has no label map; it can only be dropped')
    if verdict is Verdict.CHECKER and (before is None or before.path is None):
        raise StoreError(
            f'nobody changed the label map of "{image_id}" while checking it; take author, or drop it, or let it be '
            "drawn again"
        )
    if before is None:
        earlier = "dropped" if image_id in dropped_images(checks) else "not checked"
        sha256 = mask.sha256 if mask else ""
        return Check(image_id, sha256, verdict, "", now, notes=(f"settled when it was {earlier}",))
    if before.verdict is verdict:
        return before
    note = f"settled when it was {before.verdict}"
    return replace(before, verdict=verdict, decided_at=now, notes=(*before.notes, note))


def _images(store: Store, number: int) -> set[str]:
    failures = (failure.image_id for failure in store.choices.failures(number))
    return {*failures, *store.choices.test_set(number)}


@dataclass(frozen=True)
class _Places:
    """Addresses of tasks."""

    url: str
    projects: dict[ProjectRole, int]
    tasks: dict[ProjectRole, dict[str, int]]

    @classmethod
    def of(cls, store: Store, number: int, url: str) -> "_Places":
        roles = (ProjectRole.SEGMENTATION, ProjectRole.CHECK)
        found = {role: store.remote.project(number, role) for role in roles}
        projects = {role: project.project_id for role, project in found.items() if project}
        return cls(url, projects, {role: store.remote.tasks(number, role) for role in roles})

    def drawing(self, image_id: str) -> str | None:
        return self._place(ProjectRole.SEGMENTATION, image_id)

    def checking(self, mask: HumanMask) -> str | None:
        return self._place(ProjectRole.CHECK, check_id(mask))

    def _place(self, role: ProjectRole, name: str) -> str | None:
        task_id = self.tasks[role].get(name)
        if task_id is None or role not in self.projects:
            return None
        return f"{self.url}/projects/{self.projects[role]}/data?task={task_id}"
