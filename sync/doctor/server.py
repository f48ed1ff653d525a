"""Checks of the server itself: that it answers, which release it is, how its clock runs, what it lets through."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urljoin, urlsplit

from mad_backend.errors import LabelStudioError
from sync.client import FILES_PER_REQUEST
from sync.doctor.findings import Finding, from_error, not_checked, ok, warning, wrong
from sync.doctor.situation import Situation, origin_of
from sync.doctor.visits import Answer, UnreachableError
from sync.push import CHUNK_BYTES

TESTED: Final = (1, 23)
_VERSION_PATH: Final = "/api/version"
_SLACK: Final = timedelta(seconds=5)
"""More than a Date header's whole seconds and a slow answer explain."""
_SKEW: Final = timedelta(seconds=60)
_CLOCK_CURE: Final = "let both machines set their clocks by NTP (timedatectl set-ntp true)"


def reachability(at: Situation) -> Iterator[Finding]:
    """A Label Studio answers at the address, without sending us elsewhere."""
    began = time.monotonic()
    try:
        answer = at.visitor.get(at.url + _VERSION_PATH, own=True)
    except UnreachableError as error:
        yield from_error(error)
        return
    elapsed_ms = 1000 * (time.monotonic() - began)
    if 300 <= answer.status < 400:
        yield _moved(at, answer)
    elif _release(answer) is None:
        yield _stranger(at, answer)
    else:
        yield ok(f"{at.url} answers in {elapsed_ms:.0f} ms")


def version(at: Situation) -> Iterator[Finding]:
    """The release is one that we know."""
    answer = at.visitor.get(at.url + _VERSION_PATH, own=True)
    release, edition = _release(answer) or "", (answer.json() or {}).get("edition", "unknown edition")
    numbers = re.match(r"(\d+)\.(\d+)", release)
    tested = ".".join(map(str, TESTED))
    if numbers is None:
        yield warning(
            f'the release "{release}" is not one we can compare; tested with {tested}', f"use {tested}"
        )
    elif (found := (int(numbers[1]), int(numbers[2]))) < TESTED:
        yield warning(
            f"{release} ({edition}) is older than {tested}, the oldest that was tested",
            f'pip install "label-studio>={tested}" on the server',
        )
    else:
        newer = f"; {tested} was tested" if found > TESTED else ""
        yield ok(f"{release}, {edition}{newer}")


def clock(at: Situation) -> Iterator[Finding]:
    """Both clocks agree, by the header Date and by the time that a new task is given."""
    answer, before, after = _timed(at)
    stamp = answer.headers.get("date")
    if stamp is None:
        yield not_checked("the server sends no header Date")
    else:
        yield _skew(parsedate_to_datetime(stamp), before, after, "the header Date")
    before = datetime.now(UTC)
    task = at.probe.read(at.probe.task("/none.jpg"))
    after = datetime.now(UTC)
    yield _skew(datetime.fromisoformat(task["updated_at"]), before, after, "updated_at of a new task")


def upload_limits(at: Situation) -> Iterator[Finding]:
    """A request as large as the largest of a push gets through, with as many files as one has.

    The files' suffix is one that Label Studio refuses, after it has read all of them: nothing is stored.
    """
    count, size = FILES_PER_REQUEST, CHUNK_BYTES // FILES_PER_REQUEST
    files = {f"{n:03d}.mad-doctor": bytes(size) for n in range(count)}
    said = f"a request of {CHUNK_BYTES >> 20} MiB with {count} files"
    try:
        at.client.upload(at.probe.project_id, files)
    except LabelStudioError as error:
        if error.status == 400 and "extension is not supported" in str(error):
            yield ok(f"{said} gets through")
        elif error.status == 413:
            yield wrong(
                f"{said} is refused with 413 by what stands before Label Studio",
                f"nginx: client_max_body_size {2 * CHUNK_BYTES >> 20}m; (Kubernetes ingress: annotation "
                f"nginx.ingress.kubernetes.io/proxy-body-size: {2 * CHUNK_BYTES >> 20}m)",
            )
        elif "DATA_UPLOAD_MAX_NUMBER_FILES" in str(error):
            yield wrong(
                f"Label Studio takes fewer than {count} files a request",
                f"start it with LABEL_STUDIO_DATA_UPLOAD_MAX_NUMBER_FILES={count}",
            )
        elif error.status == 400 and "Maximum total size" in str(error):
            yield wrong(
                f"{said} is more than Label Studio takes",
                f"start it with LABEL_STUDIO_DATA_UPLOAD_MAX_MEMORY_SIZE={4 * CHUNK_BYTES}",
            )
        elif error.status is None:
            yield wrong(
                f"{said} is cut off without an answer",
                f"look at the limits of what stands before Label Studio; nginx: client_max_body_size "
                f"{2 * CHUNK_BYTES >> 20}m;",
            )
        else:
            raise
    else:
        yield warning(f"{said} gets through, with files that should be refused", "use a tested release")


def _release(answer: Answer) -> str | None:
    """What Label Studio's /api/version calls itself; None from anybody else."""
    body = answer.json()
    return (
        str(body["release"])
        if answer.status == 200 and isinstance(body, dict) and "release" in body
        else None
    )


def _moved(at: Situation, answer: Answer) -> Finding:
    there = urljoin(at.url + _VERSION_PATH, answer.headers.get("location", ""))
    base = there.partition("?")[0].rstrip("/").removesuffix(_VERSION_PATH)
    told = f"{at.url} sends us to {there.partition('?')[0]}"
    if there.partition("?")[0].rstrip("/").endswith(_VERSION_PATH):
        return wrong(told, f"set label_studio.url: {base}")
    return wrong(
        told,
        "set label_studio.url to where Label Studio's API answers without a login page of another service",
    )


def _stranger(at: Situation, answer: Answer) -> Finding:
    told = f"what answers at {at.url} is not Label Studio (status {answer.status} for {_VERSION_PATH})"
    if answer.status == 400 and b"HTTPS" in answer.content:
        return wrong(
            told, f"it wants https: set label_studio.url: {at.url.replace('http://', 'https://', 1)}"
        )
    if answer.status in (502, 503, 504):
        return wrong(
            f"the proxy at {at.url} answers {answer.status}: Label Studio behind it does not run",
            "start Label Studio, or wait until it is up",
        )
    root = f"{origin_of(at.url)}/"
    if urlsplit(at.url).path or answer.status == 404:
        seen = at.visitor.get(root, own=True)
        where = urljoin(root, seen.headers.get("location", "")).partition("?")[0]
        if seen.headers.get("location") and where.rstrip("/") != root.rstrip("/"):
            base = where.partition("/user/login")[0].rstrip("/")
            return wrong(told, f"its front page sends browsers to {where}: try label_studio.url: {base}")
    return wrong(told, "set label_studio.url to Label Studio's address, with its path if it has one")


def _timed(at: Situation) -> tuple[Answer, datetime, datetime]:
    before = datetime.now(UTC)
    answer = at.visitor.get(at.url + _VERSION_PATH, own=True)
    return answer, before, datetime.now(UTC)


def _skew(theirs: datetime, before: datetime, after: datetime, by: str) -> Finding:
    """How far `theirs` lies outside of the time in which it was taken."""
    ahead = max(theirs - after, before - theirs, timedelta(0))
    side = "ahead of" if theirs > after else "behind"
    told = f"by {by}, Label Studio's clock is {ahead.total_seconds():.0f} s {side} ours"
    if ahead > _SKEW:
        return wrong(told, _CLOCK_CURE)
    if ahead > _SLACK:
        return warning(told, _CLOCK_CURE)
    return ok(f"by {by}, the clocks agree")
