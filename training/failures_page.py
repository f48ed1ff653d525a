"""What goes wrong as one HTML page: the groups, how they fare from round to round, and their worst images."""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Final

from markupsafe import Markup

from mad_backend.core.failure_groups import FailedImage, FailureGroup, mean_miou, trends
from mad_backend.pool.predictions import PredictionPack
from training.failures import FailureReport
from training.failures_text import (
    LEGEND,
    group_headers,
    group_row,
    kind_text,
    note_lines,
    number_text,
    pair_text,
)
from training.pages import bullets, page, paragraph, plot, section, table
from training.pictures import picture_row
from training.plots import Curve, curves_svg
from training.project import Project
from training.report_text import images

GROUPS: Final = 12
"""Groups by confusion that have pictures; groups by appearance are few and all have."""
EACH: Final = 2
"""Images of a group that have pictures, three each: about four megabytes if all groups are there."""
CURVES: Final = 6
"""Groups in a plot."""


def failure_page(project: Project, report: FailureReport) -> str:
    """One HTML file; raises ImageError where an image that is shown cannot be read any more."""
    names = project.labels.names
    rows = [group_row(report, group, names) for group in report.confusions]
    shown = table(group_headers(report), rows, text_columns=3)
    parts = [section("Every pair of classes", shown, bullets(LEGEND), bullets(note_lines(report)))]
    curves = [plot(svg) for svg in _curves(report, names)]
    parts += [section("From round to round", *curves)] if curves else []
    with ExitStack() as stack:
        packs = {
            target: stack.enter_context(project.predictions.open(report.keys[target]))
            for target in sorted({image.target for image in report.images})
        }
        for group in report.confusions[:GROUPS]:
            title = f"{pair_text(group, names)}: {images(len(group.members))}"
            parts.append(_group(project, report, group, title, packs))
        for group in report.appearances:
            title = f"Like {group.example}, mostly {pair_text(group, names)}: {images(len(group.members))}"
            parts.append(_group(project, report, group, title, packs))
    return page(f"What goes wrong, {images(len(report.images))}", Markup("\n").join(parts))


def _group(
    project: Project,
    report: FailureReport,
    group: FailureGroup,
    title: str,
    packs: Mapping[str, PredictionPack],
) -> Markup:
    rows = [
        [
            trend.image_set,
            str(trend.images),
            f"{trend.rated_share:.1%}",
            number_text(trend.found),
            *(number_text(trend.miou[version]) for version in report.versions),
        ]
        for trend in trends(group, report.rated, report.versions)
    ]
    headers = [
        "set",
        "images",
        "of those rated",
        "mIoU when found",
        *(f"mIoU of {v}" for v in report.versions),
    ]
    # The example first: of an appearance it says what the group is, else it is the worst anyway.
    ordered = sorted(group.members, key=lambda m: m.image_id != group.example)
    pictures = [_pictures(project, report, member, packs[member.target]) for member in ordered[:EACH]]
    return section(title, paragraph(f"Mostly {kind_text(group)}."), table(headers, rows), *pictures)


def _pictures(project: Project, report: FailureReport, member: FailedImage, pack: PredictionPack) -> Markup:
    """The photo, what the target said and what people drew."""
    item = report.labelled[member.image_id]
    truth = item.truth.read()
    prediction = project.grid.restore(pack.read(member.image_id), *truth.shape)
    now = member.miou.get(report.served, math.nan)
    caption = f"{member.image_id}, {member.image_set}: mIoU {number_text(member.found)} of {member.target}"
    if report.served != member.target and not math.isnan(now):
        caption += f", {number_text(now)} of {report.served}"
    maps = {member.target: prediction, "label map": truth}
    return picture_row(member.image_id, project.reader.rgb(item.image), maps, project.labels, caption)


def _curves(report: FailureReport, names: tuple[str, ...]) -> Iterator[str]:
    """Of the largest groups: images in S by round, and mean image mIoU on them by version."""
    largest = report.confusions[:CURVES]
    learnt = {name: total for name, total in report.rated.items() if name.startswith("S")}
    if len(learnt) > 1:
        rounds = [int(name[2:-1]) for name in learnt]
        counts = [
            Curve(pair_text(group, names), rounds, [t.images for t in trends(group, learnt, ())])
            for group in largest
        ]
        yield curves_svg(
            counts, title="Images of S by round", x_label="round", y_label="images", whole_x=True
        )
    if len(report.versions) > 1:
        mious = [
            Curve(
                pair_text(group, names),
                range(len(report.versions)),
                [
                    mean_miou(m.miou.get(v, math.nan) for m in group.members if m.image_set in learnt)
                    for v in report.versions
                ],
            )
            for group in largest
        ]
        yield curves_svg(
            mious,
            title="Mean image mIoU on the images of S",
            x_label=f"version of the target, 0 = {report.versions[0]}",
            y_label="mean image mIoU",
            whole_x=True,
        )
