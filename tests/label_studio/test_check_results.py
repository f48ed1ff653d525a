"""A checker's answer: verdict, error types, and the regions that are left."""

from typing import Any

import pytest

from mad_backend.core.records import ErrorType, Verdict
from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.check_results import check_answer, choice_of
from mad_backend.label_studio.label_config import ERRORS_TAG, VERDICT_TAG

REGION = {"from_name": "mask", "type": "bitmasklabels", "value": {"bitmasklabels": ["cat"]}}


def test_a_verdict_with_error_types_in_any_order_and_the_regions_apart() -> None:
    result = [REGION, choice_of(ERRORS_TAG, "void", "boundary"), choice_of(VERDICT_TAG, "corrected"), REGION]
    answer = check_answer(result)
    assert answer.verdict is Verdict.CORRECTED
    assert answer.errors == (ErrorType.BOUNDARY, ErrorType.VOID)
    assert answer.regions == (REGION, REGION)


def test_error_types_may_be_left_out() -> None:
    answer = check_answer([choice_of(VERDICT_TAG, "accepted")])
    assert (answer.verdict, answer.errors, answer.regions) == (Verdict.ACCEPTED, (), ())


@pytest.mark.parametrize(
    "result",
    [
        [],
        [REGION],
        [choice_of(VERDICT_TAG)],
        [choice_of(VERDICT_TAG, "accepted", "rejected")],
        [choice_of(VERDICT_TAG, "accepted"), choice_of(VERDICT_TAG, "rejected")],
        [choice_of(VERDICT_TAG, "dropped")],
        [choice_of(VERDICT_TAG, "Accept")],
        [{"from_name": VERDICT_TAG}],
        [{"from_name": VERDICT_TAG, "value": {"choices": {"a": 1}}}],
        ["verdict"],
    ],
)
def test_anything_but_one_verdict_is_refused(result: list[Any]) -> None:
    with pytest.raises(LabelFormatError, match="wanted one verdict of accepted, corrected, rejected, came"):
        check_answer(result)


@pytest.mark.parametrize("name", ["ugly", "Boundary", ""])
def test_an_unknown_error_type_is_named(name: str) -> None:
    with pytest.raises(LabelFormatError, match="wanted error types of boundary, missing, wrong class, void"):
        check_answer([choice_of(VERDICT_TAG, "rejected"), choice_of(ERRORS_TAG, name)])
