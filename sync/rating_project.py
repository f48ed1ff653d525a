"""The rating project: raters see a photo beside the target's label map of it, and nothing that tells.

One project for all, or (`rating.blind`) one a seat: of each person in rating.people, with the same tasks.
"""

from collections.abc import Sequence

from mad_backend.core.drawing import legend, overlay
from mad_backend.core.labels import LabelSet
from mad_backend.core.panels import seat_holders
from mad_backend.core.records import ProjectRole, RemoteProject
from mad_backend.errors import SettingsError
from mad_backend.label_studio.label_config import legend_html, rating_config
from mad_backend.label_studio.rating_help import rating_help
from mad_backend.settings import RatingSettings
from mad_backend.store.store import Store
from sync.client import LabelStudioClient
from sync.pictures import PictureHost, UploadedPictures
from sync.projects import ensure_picture_project, ensure_project
from sync.push import Drawn, PushItem, Report, jpeg, push_items


def push_ratings(
    client: LabelStudioClient,
    store: Store,
    number: int,
    title: str,
    labels: LabelSet,
    items: Sequence[PushItem],
    rating: RatingSettings,
    *,
    report: Report,
    host: PictureHost | None = None,
) -> list[RemoteProject]:
    """The rating project of the round, or one for each seat; a round goes on as it began, whatever settings say now.

    `report` counts tasks of all projects together. Raises SettingsError if rating.people names somebody whom Label
    Studio does not know, and as `push_rating` does.
    """
    seats = _seats(client, store, number, rating)
    place = host or _shelf(client, store, number, title)
    projects = []
    for n, seat in enumerate(seats):

        def sent(done: int, _total: int, before: int = n * len(items)) -> None:
            report(before + done, len(seats) * len(items))

        projects.append(
            push_rating(
                client,
                store,
                number,
                title,
                labels,
                items,
                raters=1 if seat else rating.raters,
                report=sent,
                host=place,
                seat=seat,
            )
        )
    return projects


def push_rating(
    client: LabelStudioClient,
    store: Store,
    number: int,
    title: str,
    labels: LabelSet,
    items: Sequence[PushItem],
    *,
    raters: int = 3,
    report: Report,
    host: PictureHost | None = None,
    seat: str = "",
) -> RemoteProject:
    """One rating project with a task per item: photo, overlay, legend, and nothing that tells.

    `host` is where pictures go; None: into a project of the server that only holds pictures. `seat` is whose project
    it is. Raises LabelStudioError; whatever had been sent by then stays and is not sent again.
    """
    settings = {
        "description": "Rate each segmentation from 1 (bad) to 5 (excellent).",
        "label_config": rating_config(),
        "maximum_annotations": raters,
        "enable_empty_annotation": False,
        "show_collab_predictions": False,
        "show_skip_button": False,
        "sampling": "Uniform sampling",
        "expert_instruction": rating_help(),
        "show_instruction": True,
    }
    project = ensure_project(client, store, number, ProjectRole.RATING, title, settings, seat)

    def draw(key: str, item: PushItem) -> Drawn:
        rgb, label_map = item.load()
        # Called the same in every seat's project, so that they are placed once.
        name = store.remote.item_key(number, ProjectRole.RATING, item.image_id)
        photo, drawn = f"{name}-a.jpg", f"{name}-b.jpg"
        text = legend_html(legend(label_map, labels), *label_map.shape)
        own = place.own_address(item.address)
        files = {drawn: jpeg(overlay(rgb, label_map, labels))} | ({} if own else {photo: jpeg(rgb)})
        return files, lambda at: {
            "data": {"image": own or at[photo], "overlay": at[drawn], "legend": text, "item": key}
        }

    # By opaque key: an order of their own in each project, which tells nothing of the pool.
    mixed = sorted(
        items, key=lambda item: store.remote.item_key(number, ProjectRole.RATING, item.image_id, seat)
    )
    place = host or _shelf(client, store, number, title)
    push_items(client, store, number, project, mixed, draw, report, place, seat)
    return project


def are_ratings_pushed(store: Store, number: int, rating: RatingSettings, items: Sequence[PushItem]) -> bool:
    """True if every item is recorded in every rating project that the round has to have."""
    projects = store.remote.projects(number, ProjectRole.RATING)
    there = [store.remote.tasks(number, ProjectRole.RATING, p.seat) for p in projects]
    is_shared = any(not p.seat for p in projects) or (not projects and not rating.blind)
    return len(projects) >= (1 if is_shared else rating.raters) and all(
        item.image_id in tasks for tasks in there for item in items
    )


def _shelf(client: LabelStudioClient, store: Store, number: int, title: str) -> PictureHost:
    return UploadedPictures(client, lambda: ensure_picture_project(client, store, number, title))


def _seats(client: LabelStudioClient, store: Store, number: int, rating: RatingSettings) -> list[str]:
    """Seats that the round has already, then as many of rating.people as are missing; [""] without seats."""
    seats = [p.seat for p in store.remote.projects(number, ProjectRole.RATING)]
    if "" in seats or (not seats and not rating.blind):
        return [""]
    left = {d.rater: d for d in store.answers.departures(number)}
    taken = {holder for seat in seats for holder in seat_holders(seat, left)}
    seats += [p for p in rating.people if p not in taken][: max(0, rating.raters - len(seats))]
    strangers = {seat_holders(seat, left)[-1] for seat in seats} - set(client.people().values())
    if strangers:
        raise SettingsError(
            f"rating.people: Label Studio at {client.url} does not know {', '.join(sorted(strangers))}; have them sign "
            "up there (Organization > Add Members), or name somebody else"
        )
    return seats
