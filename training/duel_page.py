"""A duel for people: lines for the terminal, and a page with both models' maps side by side."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Final

from markupsafe import Markup

from mad_backend.core.duel import Duel, Side
from mad_backend.core.statistics import images_needed
from mad_backend.pool.predictions import PredictionPack
from mad_backend.pool.sources import LabelledImage
from training.duel import DuelReport, ScoredImage
from training.pages import bullets, page, paragraph, section, table
from training.pictures import picture_row
from training.project import Project
from training.report_text import images, points_text, value_text

SHOWN: Final = 12
"""Images of which the page has pictures, four each: about a megabyte."""

_METHOD = (
    "The images are among those of the pool on which the two models disagree most, drawn as a test set is: by class "
    "and role, with few of one main class. Neither model was trained on them, and none will be. Brackets are bootstrap "
    "95 % intervals over these images; the difference is paired. They say who is better where the two disagree, not "
    "by how much one is better on the whole pool."
)


def duel_lines(report: DuelReport) -> Iterator[str]:
    """What came of it, and what a reader has to know of it."""
    found, first, second = report.result, report.first, report.second
    yield f"{first} - {second} on {images(found.images)}, label maps of {report.labels}"
    yield f"dataset mIoU of {first}: {value_text(found.first)}"
    yield f"dataset mIoU of {second}: {value_text(found.second)}"
    yield f"{first} - {second}: {points_text(found.difference)}"
    yield (
        f"{first} is better on {images(found.wins)}, {second} on {images(found.losses)}, equal on "
        f"{images(found.ties)} (sign test: p = {found.sign_p:.2g})"
    )
    yield verdict(report)
    if found.images < images_needed(0.95):
        yield f"{images(found.images)} are too few for any verdict: {images_needed(0.95)} are needed"
    if report.unlabelled:
        yield f"{images(len(report.unlabelled))} without a label map left out: {', '.join(report.unlabelled)}"
    if report.dropped:
        yield (
            f"{images(len(report.dropped))} left out, since more show one main class than test_set.per_class: "
            f"{', '.join(report.dropped)}"
        )


def verdict(report: DuelReport) -> str:
    """Who wins, in a few words."""
    match report.result.winner:
        case Side.FIRST:
            return f"{report.first} wins"
        case Side.SECOND:
            return f"{report.second} wins"
        case None:
            return f"not decided by {images(report.result.images)}"


def duel_page(project: Project, duel: Duel, labelled: Sequence[LabelledImage], report: DuelReport) -> str:
    """One HTML file: the figures, every image's, and pictures of those on which the models disagree most."""
    ordered = sorted(report.images, key=lambda i: (-i.discrepancy, i.image_id))
    rows = [
        [i.image_id, f"{i.discrepancy:.3f}", f"{i.first_miou:.3f}", f"{i.second_miou:.3f}"] for i in ordered
    ]
    headers = ["image", "discrepancy", f"mIoU of {report.first}", f"mIoU of {report.second}"]
    truths = {item.image.image_id: item for item in labelled}
    with ExitStack() as stack:
        packs = {
            model.name: stack.enter_context(project.predictions.open(model.key))
            for model in (duel.first, duel.second)
        }
        pictures = [_pictures(project, truths[i.image_id], packs, _caption(i)) for i in ordered[:SHOWN]]
    body = bullets(duel_lines(report)) + paragraph(_METHOD)
    shown = section("Where they disagree most", *pictures)
    return page(f"Duel {duel.title}", body + shown + section("Every image", table(headers, rows)))


def _caption(image: ScoredImage) -> str:
    mious = f"mIoU {image.first_miou:.3f} and {image.second_miou:.3f}"
    return f"{image.image_id}: discrepancy {image.discrepancy:.3f}, {mious}"


def _pictures(
    project: Project, item: LabelledImage, packs: Mapping[str, PredictionPack], caption: str
) -> Markup:
    """The photo, both models' maps and people's, side by side, and what the colours stand for."""
    rgb, truth = project.reader.rgb(item.image), item.truth.read()
    image_id, (height, width) = item.image.image_id, truth.shape
    maps = {
        name: project.grid.restore(pack.read(image_id), height, width)
        for name, pack in packs.items()
        if image_id in pack
    } | {"label map": truth}
    return picture_row(image_id, rgb, maps, project.labels, caption)
