"""Label Studio results (JSON): ratings, and the fields of regions."""

from collections.abc import Mapping, Sequence
from typing import Any

from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.label_config import OUT_OF_DOMAIN, QUALITY_TAG

Region = Mapping[str, Any]
"""One entry of a `result` list, as Label Studio stores it."""


def rating_of(result: Sequence[Region]) -> int | None:
    """ACR score 1 to 5, or None for a veto (out of domain); raises LabelFormatError for anything else."""
    answers = [
        field_of(field_of(r, "value"), "choices") for r in result if field_of(r, "from_name") == QUALITY_TAG
    ]
    match answers:
        case [["1" | "2" | "3" | "4" | "5" as digit]]:
            return int(digit)
        case [[choice]] if choice == OUT_OF_DOMAIN:
            return None
    raise LabelFormatError(f'rating: wanted one choice of 1 to 5 or "{OUT_OF_DOMAIN}", came {answers!r:.80}')


def field_of(holder: object, name: str) -> Any:
    """`holder[name]`, or None where there is no such thing: the server stores whatever it is sent."""
    return holder.get(name) if isinstance(holder, Mapping) else None
