"""Frozen records that cross module borders."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from mad_backend.core.labels import RgbImage


class Metric(StrEnum):
    """The distance d of Eq. (1)."""

    MIOU = "miou"
    PIXEL_AGREEMENT = "pixel_agreement"


class Role(StrEnum):
    """Whose label map defines the sub-pool: the target's, or the competing model's (roles reversed)."""

    TARGET = "target"
    COMPETITOR = "competitor"


class Part(StrEnum):
    """What an image of M was chosen for: S (failures) or T (test set)."""

    FAILURES = "failures"
    TEST_SET = "test_set"


class ProjectRole(StrEnum):
    """What a Label Studio project of a round is for."""

    RATING = "rating"
    SEGMENTATION = "segmentation"
    CHECK = "check"


class Verdict(StrEnum):
    """What the cross-check of a label map came to; the last three are decisions of `mad settle`."""

    ACCEPTED = "accepted"
    CORRECTED = "corrected"
    REJECTED = "rejected"
    AUTHOR = "author"
    CHECKER = "checker"
    DROPPED = "dropped"

    @property
    def is_settled(self) -> bool:
        """True where ops decided: no later answer changes it."""
        return self in (Verdict.AUTHOR, Verdict.CHECKER, Verdict.DROPPED)


class ErrorType(StrEnum):
    """What a checker found wrong in a label map (Sec. 4.1)."""

    BOUNDARY = "boundary"
    MISSING = "missing"
    WRONG_CLASS = "wrong class"
    VOID = "void"


@dataclass(frozen=True, slots=True)
class PoolImage:
    """One image of the pool D, not yet decoded; `path` is a local path or an fsspec address (s3://bucket/key).

    `etag` is what its source says of the content without reading it (size and time, or a checksum): another one means
    that the bytes may have changed, "" that only the bytes can tell.
    """

    image_id: str
    path: str
    etag: str = ""


@dataclass(frozen=True)
class Frame:
    """A decoded image on the evaluation grid, as models see it; `size` is the image's own (height, width).

    `address` is where the image lies (path, s3://..., https://...), for models that open it themselves; "" if unknown.
    """

    image_id: str
    rgb: RgbImage
    size: tuple[int, int]
    address: str = ""


@dataclass(frozen=True, order=True)
class Provenance:
    """Why an image is in M: the cell of Eq. (2) that chose it, its place there (1 = first) and its d."""

    competitor: str
    class_id: int
    role: Role
    rank: int
    discrepancy: float


@dataclass(frozen=True)
class Candidate:
    """A member of M with every cell that chose it."""

    image_id: str
    provenance: tuple[Provenance, ...]

    @property
    def discrepancy(self) -> float:
        """The largest d among its cells."""
        return max(p.discrepancy for p in self.provenance)


@dataclass(frozen=True)
class Rating:
    """One rater's answer for one image: an ACR score 1 (bad) to 5 (excellent), or a veto (out-of-domain)."""

    image_id: str
    rater: str
    score: int | None
    annotation_id: int
    created_at: datetime
    lead_time_s: float | None = None

    @property
    def is_veto(self) -> bool:
        return self.score is None


@dataclass(frozen=True)
class Veto:
    """An image that a rater of a round called out-of-domain, or the first of several; no longer so if `is_lifted`."""

    image_id: str
    round_number: int
    rater: str
    is_lifted: bool


class AnswerKind(StrEnum):
    """What an answer of the rating project is; only the first two say anything of the image."""

    RATING = "rating"
    VETO = "veto"
    SKIPPED = "skipped"
    EMPTY = "empty"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Answer:
    """One annotation of the rating project as it stands at the server, whether or not it counts.

    `rater` is an email, or what is known of somebody whom the server no longer knows. `seat` is the project it was
    given in ("": the one project of all). `score` is of ratings only.
    """

    image_id: str
    task_id: int
    annotation_id: int
    rater: str
    kind: AnswerKind
    created_at: datetime
    score: int | None = None
    lead_time_s: float | None = None
    seat: str = ""

    @property
    def is_opinion(self) -> bool:
        """True for a rating or a veto."""
        return self.kind in (AnswerKind.RATING, AnswerKind.VETO)

    def rating(self) -> Rating:
        """Of an opinion only."""
        return Rating(
            self.image_id, self.rater, self.score, self.annotation_id, self.created_at, self.lead_time_s
        )


@dataclass(frozen=True)
class Departure:
    """A rater who left a round; `discarded`: what they had answered does not count either."""

    rater: str
    replaced_by: str | None
    discarded: bool
    at: datetime


@dataclass(frozen=True)
class Failure:
    """A member of S with the mean opinion score that brought it there."""

    image_id: str
    mos: float


@dataclass(frozen=True)
class HumanMask:
    """Where a pulled label map lies, whose it is, and what was odd about it (empty when nothing was).

    `lead_time_s` is Label Studio's, None where nobody told: seconds with the task open, idle ones too, summed over
    drafts and later changes of the annotation.
    """

    image_id: str
    path: str
    sha256: str
    annotator: str
    annotation_id: int
    notes: tuple[str, ...] = ()
    annotator_id: int | None = None
    drawn_at: datetime | None = None
    lead_time_s: float | None = None


@dataclass(frozen=True)
class Check:
    """What became of one version of a drawn label map (`mask_sha256`) in the cross-check.

    `path` and `sha256` are the checker's own label map, where it differs from the drawn one on `changed_share` of all
    pixels. `decided_at` is when the checker last answered, or when ops decided. `checker` is "" where nobody
    had looked before ops decided.
    """

    image_id: str
    mask_sha256: str
    verdict: Verdict
    checker: str
    decided_at: datetime
    errors: tuple[ErrorType, ...] = ()
    annotation_id: int | None = None
    changed_share: float | None = None
    path: str | None = None
    sha256: str | None = None
    notes: tuple[str, ...] = ()
    lead_time_s: float | None = None


@dataclass(frozen=True)
class RemoteProject:
    """A Label Studio project that belongs to a round; `signature` is the SHA-256 of its label configuration.

    `seat` is whose it is, where each rater has a project of their own; "": everybody's.
    """

    role: ProjectRole
    project_id: int
    title: str
    signature: str
    seat: str = ""


@dataclass(frozen=True)
class ModelVersion:
    """One version of the target model, f(i); `path` is a checkpoint, or None for f(0), which settings describe."""

    version: str
    round_number: int
    path: str | None
    created_at: datetime
    promoted_at: datetime | None = None
