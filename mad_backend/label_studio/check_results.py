"""What a checker answered, from Label Studio's results (JSON)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mad_backend.core.records import ErrorType, Verdict
from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.label_config import ERRORS_TAG, VERDICT_TAG
from mad_backend.label_studio.results import Region, field_of

ANSWERS = (Verdict.ACCEPTED, Verdict.CORRECTED, Verdict.REJECTED)
"""What a checker may choose; the other verdicts are not theirs to give."""


@dataclass(frozen=True)
class CheckAnswer:
    """A verdict, the types of errors, and the label map as the checker left it, as regions."""

    verdict: Verdict
    errors: tuple[ErrorType, ...]
    regions: tuple[Region, ...]


def check_answer(result: Sequence[Region]) -> CheckAnswer:
    """Raises LabelFormatError unless there is one verdict, and only error types that we know."""
    given = _choices(result, VERDICT_TAG)
    if len(given) != 1 or given[0] not in ANSWERS:
        raise LabelFormatError(f"check: wanted one verdict of {', '.join(ANSWERS)}, came {given!r:.80}")
    named = _choices(result, ERRORS_TAG)
    strangers = [name for name in named if name not in tuple(ErrorType)]
    if strangers:
        raise LabelFormatError(f"check: wanted error types of {', '.join(ErrorType)}, came {strangers!r:.80}")
    errors = tuple(error for error in ErrorType if error in named)
    regions = tuple(r for r in result if field_of(r, "from_name") not in (VERDICT_TAG, ERRORS_TAG))
    return CheckAnswer(Verdict(str(given[0])), errors, regions)


def choice_of(tag: str, *chosen: str) -> dict[str, Any]:
    """One answered question, as Label Studio stores it."""
    return {"from_name": tag, "to_name": "image", "type": "choices", "value": {"choices": list(chosen)}}


def _choices(result: Sequence[Region], tag: str) -> list[object]:
    found: list[object] = []
    for region in result:
        if field_of(region, "from_name") == tag:
            chosen = field_of(field_of(region, "value"), "choices")
            found.extend(chosen if isinstance(chosen, list) else [chosen])
    return found
