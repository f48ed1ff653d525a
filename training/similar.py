"""Images of the pool that are most like one, by the features of the target that is served: "find more like this"."""

import difflib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.markup import escape
from rich.table import Table

from mad_backend.core.acquisition import nearest
from mad_backend.core.records import ModelVersion, PoolImage
from mad_backend.errors import ImageError, PoolError
from training.acquisition import acquisition_scores
from training.pages import bullets, page, table
from training.pictures import picture_row
from training.project import Project
from training.report_text import images

SHOWN: Final = 40
"""Images that have pictures on the page."""
_HEADERS: Final = ("image", "used in", "cosine")


@dataclass(frozen=True)
class Neighbour:
    """An image of the pool; `spent`: the S, T or duel it was used in, "vetoed", or "" where it may yet be chosen."""

    image_id: str
    cosine: float
    spent: str


@dataclass(frozen=True)
class Similar:
    """The images most like `image`, best first; `version` is whose features are compared, `of` how many images."""

    image: PoolImage
    version: ModelVersion
    of: int
    neighbours: tuple[Neighbour, ...]
    unreadable: int


def find_similar(project: Project, wanted: str, top: int, report: Callable[[str, int, int], None]) -> Similar:
    """`wanted` is the id of an image of the pool, or a path; features that are missing are computed first.

    Raises PoolError where there is no such image, ImageError where it cannot be read, ModelError for a target of a kind
    without features.
    """
    image = _image(project, wanted)
    version = project.current_target()
    others = [other for other in project.pool.values() if other.image_id != image.image_id]
    scores = acquisition_scores(project, version, [image, *others], report)
    if image.image_id in scores.unreadable:
        raise ImageError(scores.unreadable[image.image_id])
    rows, cosines = nearest(scores.embeddings[0], scores.embeddings[1:], top)
    spent = _spent(project)
    ids = [scores.image_ids[1 + row] for row in rows.tolist()]
    neighbours = tuple(
        Neighbour(i, cosine, spent.get(i, "")) for i, cosine in zip(ids, cosines.tolist(), strict=True)
    )
    return Similar(image, version, len(scores.image_ids) - 1, neighbours, len(scores.unreadable))


def similar_table(found: Similar) -> Table:
    """The images, best first."""
    shown = Table(title=f"Most like {escape(found.image.image_id)}", title_justify="left", box=box.SIMPLE)
    for header in _HEADERS:
        shown.add_column(header, justify="right" if header == "cosine" else "left", overflow="fold")
    for row in _rows(found):
        shown.add_row(*map(escape, row))
    return shown


def similar_lines(found: Similar) -> Iterator[str]:
    """What was compared, and how many of the images may yet be chosen."""
    free = sum(not n.spent for n in found.neighbours)
    yield f"compared with {images(found.of)} of the pool by the features of {found.version.version}"
    yield f"{free} of these {len(found.neighbours)} may still be chosen by a round"
    if found.unreadable:
        yield f"{images(found.unreadable)} cannot be read and are left out"


def similar_page(project: Project, found: Similar) -> str:
    """One HTML file: the table, and the images with the label maps of the target, as far as there are any."""
    body = bullets(similar_lines(found)) + table(_HEADERS, _rows(found), text_columns=2)
    shown = [found.image, *(project.pool[n.image_id] for n in found.neighbours[:SHOWN])]
    captions = [found.image.image_id, *(f"{n.image_id}: {n.cosine:.3f}" for n in found.neighbours)]
    with project.predictions.open(project.target_key(found.version)) as pack:
        for image, caption in zip(shown, captions, strict=False):
            rgb, maps = project.reader.rgb(image), {}
            if image.image_id in pack:
                maps[found.version.version] = project.grid.restore(pack.read(image.image_id), *rgb.shape[:2])
            body += picture_row(image.image_id, rgb, maps, project.labels, caption)
    return page(f"Most like {found.image.image_id}", body)


def similar_fields(found: Similar) -> dict[str, Any]:
    """For JSON."""
    return {
        "image": found.image.image_id,
        "version": found.version.version,
        "compared": found.of,
        "unreadable": found.unreadable,
        "similar": [asdict(neighbour) for neighbour in found.neighbours],
    }


def _rows(found: Similar) -> list[list[str]]:
    return [[n.image_id, n.spent, f"{n.cosine:.3f}"] for n in found.neighbours]


def _image(project: Project, wanted: str) -> PoolImage:
    if wanted in project.pool:
        return project.pool[wanted]
    path = Path(wanted).absolute()
    if not path.is_file():
        near = difflib.get_close_matches(wanted, project.pool, n=3)
        hint = f"the nearest ids are {', '.join(near)}" if near else f"ids are as {min(project.pool)}"
        raise PoolError(f'there is no image "{wanted}" in the pool, and no such file; {hint}')
    return next((i for i in project.pool.values() if i.path == str(path)), PoolImage(str(path), str(path)))


def _spent(project: Project) -> dict[str, str]:
    """Image id -> what it was used in."""
    choices = project.store.choices
    spent = dict.fromkeys(choices.vetoed(), "vetoed")
    spent |= {i.image_id: f"duel {d.title}" for d in project.store.duels.all() for i in d.images}
    for found in project.store.rounds.all():
        spent |= {f.image_id: f"S({found.number})" for f in choices.failures(found.number)}
        spent |= dict.fromkeys(choices.test_set(found.number), f"T({found.number})")
    return spent
