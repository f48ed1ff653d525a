"""What a check found, what to do about it, and how checks are run so that none stops the others."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from traceback import extract_tb
from typing import Any

from mad_backend.errors import MadError
from sync.doctor.situation import Situation

log = logging.getLogger(__name__)


class Verdict(StrEnum):
    """How it stands; only WRONG makes `mad doctor` fail."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class Finding:
    """One thing that a check found; `cure` is the exact setting to change, "" where nothing is to be done."""

    verdict: Verdict
    told: str
    cure: str = ""


@dataclass(frozen=True)
class Line:
    """A finding and the name of its check."""

    name: str
    finding: Finding


@dataclass(frozen=True)
class Check:
    """`doing` is shown while it runs; not run where a check that it `needs` found something wrong."""

    name: str
    doing: str
    look: Callable[[Situation], Iterable[Finding]]
    needs: tuple[str, ...] = ()


def ok(told: str) -> Finding:
    """Nothing to do."""
    return Finding(Verdict.OK, told)


def warning(told: str, cure: str) -> Finding:
    """Works, but not as well as it could, or not for long."""
    return Finding(Verdict.WARNING, told, cure)


def wrong(told: str, cure: str) -> Finding:
    """Will cost somebody a day."""
    return Finding(Verdict.WRONG, told, cure)


def not_checked(why: str) -> Finding:
    """Nothing is known, and why."""
    return Finding(Verdict.NOT_CHECKED, why)


def from_error(error: MadError) -> Finding:
    """Our messages say what was wanted and what came; behind the first semicolon, what to do."""
    told, _, cure = str(error).partition("; ")
    return wrong(told, cure)


def run_checks(
    checks: Sequence[Check], situation: Situation, report: Callable[[str], None]
) -> Iterator[Line]:
    """The lines as they are found; `report` is told what is done meanwhile."""
    failed: set[str] = set()
    for check in checks:
        in_the_way = [name for name in check.needs if name in failed]
        if in_the_way:
            found = [not_checked(f"needs {', '.join(in_the_way)}")]
            failed.add(check.name)
        else:
            report(check.doing)
            found = _looked(check, situation)
        if any(finding.verdict is Verdict.WRONG for finding in found):
            failed.add(check.name)
        yield from (Line(check.name, finding) for finding in found)


def _looked(check: Check, situation: Situation) -> list[Finding]:
    """What had been found before an error is kept."""
    found: list[Finding] = []
    try:
        for finding in check.look(situation):
            found.append(finding)  # noqa: PERF402 - an error must not lose what was found before it
    except MadError as error:
        found.append(from_error(error))
    except Exception as error:  # noqa: BLE001 - the other checks shall still be made
        found.append(_crashed(check, error))
    return found


def _crashed(check: Check, error: Exception) -> Finding:
    """Only its kind and place are shown: its text may hold anything."""
    last = extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}:{last.lineno}"
    log.debug("check %s", check.name, exc_info=error)
    return wrong(
        f"the check itself failed with {type(error).__name__} at {where}",
        "the other checks are not affected; report this line with the version of Label Studio",
    )


def as_json(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """For --json: a list of {name, verdict, told, cure}."""
    return [
        {
            "name": line.name,
            "verdict": str(line.finding.verdict),
            "told": line.finding.told,
            "cure": line.finding.cure,
        }
        for line in lines
    ]
