"""What goes wrong in words: names of groups, the table for the terminal, and fields for JSON."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from mad_backend.core.failure_groups import FailedImage, FailureGroup, mean_miou, trends
from training.failures import FailureReport
from training.report_text import images

SHOWN = 20
"""Groups in the table."""
LEGEND = (
    "wrong: the pair of classes with the most wrong pixels of an image, in the label map of the version that found it",
    "area: wrong pixels of these pairs, of all wrong pixels, each image counted as one",
    "size: of the class concerned, against the quartiles of its size over S(0)",
    "mIoU: mean image mIoU of the version that found the images -> of the one served now",
    "S: the images rated worst, which may have been learnt since; T: drawn from M whatever their rating, never learnt",
)


def pair_text(group: FailureGroup, names: Sequence[str]) -> str:
    """As in "bicycle as background"; `names` of classes by id."""
    return f"{names[group.truth]} as {names[group.predicted]}"


def kind_text(group: FailureGroup) -> str:
    """The size and position that most images of the group have, as in "small, at the border (12 of 14)"."""
    (size, position), count = next(iter(group.kinds.items()))
    return f"{size}, {position} ({count} of {len(group.members)})"


def number_text(value: float) -> str:
    """Three digits; "-" for NaN."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def group_headers(report: FailureReport) -> list[str]:
    """Of `group_row`; a column for every S and T."""
    return ["wrong", "size", "position", "area", *report.rated, "mIoU on S", "mIoU on T"]


def group_row(report: FailureReport, group: FailureGroup, names: Sequence[str]) -> list[str]:
    """Everything of a group in one line."""
    area = group.area / sum(image.confusion.wrong_share for image in report.images)
    return [
        pair_text(group, names),
        _counts([m.confusion.size for m in group.members]),
        _counts([m.confusion.position for m in group.members]),
        f"{area:.1%}",
        *(str(sum(m.image_set == name for m in group.members)) for name in report.rated),
        *(_change([m for m in group.members if m.image_set.startswith(p)], report.served) for p in "ST"),
    ]


def failure_table(report: FailureReport, names: Sequence[str]) -> Table:
    """The `SHOWN` groups by confusion that have the largest wrong area."""
    table = Table(
        title=f"What goes wrong, {images(len(report.images))}", title_justify="left", box=box.SIMPLE
    )
    for header in group_headers(report):
        table.add_column(header, justify="right" if header in (*report.rated, "area") else "left")
    if more := report.confusions[SHOWN:]:
        rest = images(sum(len(group.members) for group in more))
        table.caption, table.caption_justify = (
            f"{len(more)} more groups with {rest}: --out and --json",
            "left",
        )
    for group in report.confusions[:SHOWN]:
        table.add_row(*map(escape, group_row(report, group, names)))
    return table


def appearance_table(report: FailureReport, names: Sequence[str]) -> Table:
    """The groups by appearance, each called after a typical image, and what is mostly wrong there."""
    title = f"By appearance, to the features of {escape(report.served)}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for header in ("like", "mostly", *group_headers(report)[1:]):
        table.add_column(header, justify="right" if header in (*report.rated, "area") else "left")
    for group in report.appearances:
        table.add_row(*map(escape, [group.example, *group_row(report, group, names)]))
    return table


def note_lines(report: FailureReport) -> Iterator[str]:
    """What a reader has to know beside the tables."""
    if report.no_appearances:
        yield f"no groups by appearance: {report.no_appearances}"
    reasons = Counter(report.left_out.values())
    yield from (f"{images(count)} in no group: {reason}" for reason, count in sorted(reasons.items()))


def failure_fields(report: FailureReport, names: Sequence[str]) -> dict[str, Any]:
    """For JSON: classes by name."""
    return {
        "served": report.served,
        "versions": report.versions,
        "rated": dict(report.rated),
        "confusions": [_group_fields(report, group, names) for group in report.confusions],
        "appearances": [_group_fields(report, group, names) for group in report.appearances],
        "no_appearances": report.no_appearances or None,
        "left_out": dict(report.left_out),
    }


def _counts(values: Sequence[str]) -> str:
    """As in "12 small, 2 large", most frequent first."""
    counts = Counter(values)
    return ", ".join(f"{counts[v]} {v}" for v in sorted(counts, key=lambda v: (-counts[v], v)))


def _change(members: Sequence[FailedImage], served: str) -> str:
    """Mean image mIoU when found, and of the version served now: "0.120 -> 0.310", "-" for what was not measured."""
    if not members:
        return "-"
    now = mean_miou(m.miou.get(served, math.nan) for m in members)
    return f"{number_text(mean_miou(m.found for m in members))} -> {number_text(now)}"


def _group_fields(report: FailureReport, group: FailureGroup, names: Sequence[str]) -> dict[str, Any]:
    return {
        "truth": names[group.truth],
        "predicted": names[group.predicted],
        "area": group.area,
        "example": group.example,
        "kinds": [
            {"size": size, "position": position, "images": count}
            for (size, position), count in group.kinds.items()
        ],
        "trend": [asdict(trend) for trend in trends(group, report.rated, report.versions)],
        "images": [
            {
                **asdict(member),
                "confusion": {
                    **asdict(member.confusion),
                    "truth": names[member.confusion.truth],
                    "predicted": names[member.confusion.predicted],
                },
            }
            for member in group.members
        ],
    }
