"""Table 1 as a page: the plots first, then the numbers, each with its interval."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from training.pages import bullets, page, paragraph, plot, section, table
from training.plots import Interval, intervals_svg
from training.report import Difference, Report
from training.report_text import FIGURES, figure, heading, images, notes, over, points_text, value_text

METHOD = (
    "Brackets and bars are 95 % intervals: how far a figure may be from that of all images of this kind, as far as "
    "the images of the set tell. Dataset mIoU is of all pixels of a set together, over the classes that are there; "
    "mean image mIoU is the mean over images of each image's own. T(0) is the benchmark; T(1), T(2), ... are images "
    "that a round found and kept from training."
)
PAIRED = (
    "Both models are compared on the same images, so a difference can be certain where the intervals of the two models "
    "overlap. The best competing model is the one with the largest dataset mIoU on that set; it is picked on the same "
    "images, which makes the target's lead look rather too small than too large."
)


def report_page(report: Report, decision: Sequence[str]) -> str:
    """The whole report as one HTML file; `decision` is what the gate decided last, in lines."""
    if not report.cells:
        return page("Table 1", bullets(["nothing was measured yet", *notes(report)]))
    body = Markup("\n").join((_models(report), _pairs(report), _decision(decision), _classes(report)))
    return page(f"Table 1{over(report)}", bullets(notes(report)) + body)


def _models(report: Report) -> Markup:
    headers = ["model", *(f"{name}, {images(count)}" for name, count in report.images.items())]
    tables = []
    for name, title in FIGURES.items():
        rows = []
        for model in report.models:
            cells = [report.cell(model, image_set) for image_set in report.images]
            texts = [value_text(figure(cell, name)) if cell else "-" for cell in cells]
            rows.append([heading(report, model), *texts])
        tables.append(table(headers, rows, caption=title))
    return section("Every model on every test set", paragraph(METHOD), plot(_values_svg(report)), *tables)


def _values_svg(report: Report) -> str:
    panels: dict[str, list[Interval]] = {
        f"{name}, {images(count)}": [] for name, count in report.images.items()
    }
    for cell in report.cells:
        found = cell.figures.dataset_miou
        row = Interval(cell.model, found.value, found.low, found.high, cell.is_target)
        panels[f"{cell.image_set}, {images(cell.figures.images)}"].append(row)
    return intervals_svg(
        panels, title="Dataset mIoU of every model on every test set", x_label="dataset mIoU"
    )


def _pairs(report: Report) -> Markup:
    parts = [paragraph(PAIRED)]
    if report.changes:
        changes = "Versions less the one they started from"
        panels: dict[str, list[Interval]] = {}
        for one in report.changes:
            panels.setdefault(one.image_set, []).append(_points(f"{one.model} - {one.other}", one))
        parts += [_differences(panels, changes), _differences_table(report.changes, changes)]
    if report.leads:
        leads = "Versions less the best competing model"
        panels = {}
        for one in report.leads:
            panels.setdefault(f"{one.image_set}, less {one.other}", []).append(_points(one.model, one))
        parts += [_differences(panels, leads), _differences_table(report.leads, leads)]
    return section("Paired differences of dataset mIoU", *parts)


def _points(name: str, one: Difference) -> Interval:
    found = one.estimate
    return Interval(name, 100 * found.value, 100 * found.low, 100 * found.high)


def _differences(panels: Mapping[str, Sequence[Interval]], title: str) -> Markup:
    return plot(intervals_svg(panels, title=title, x_label="points of dataset mIoU", zero=True))


def _differences_table(found: Sequence[Difference], title: str) -> Markup:
    rows = [[one.model, one.other, one.image_set, points_text(one.estimate)] for one in found]
    return table(
        ["model", "less", "test set", "difference [95 % interval]"], rows, caption=title, text_columns=3
    )


def _decision(lines: Sequence[str]) -> Markup:
    return section("What the gate decided", bullets(lines)) if lines else Markup("")


def _classes(report: Report) -> Markup:
    tables = []
    for name, count in report.images.items():
        cells = [cell for cell in report.cells if cell.image_set == name]
        rows = [
            [label, *(value_text(cell.figures.per_class[k]) for cell in cells)]
            for k, label in enumerate(report.classes)
        ]
        headers = ["class", *(heading(report, cell.model) for cell in cells)]
        tables.append(table(headers, rows, caption=f"{name}, {images(count)}"))
    return section("IoU of every class", *tables)
