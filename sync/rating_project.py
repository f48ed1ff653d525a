"""The rating project: raters see a photo beside the target's label map of it, and nothing that tells."""

from collections.abc import Sequence
from typing import Final

from mad_backend.core.drawing import legend, overlay
from mad_backend.core.labels import LabelSet
from mad_backend.core.records import ProjectRole, RemoteProject
from mad_backend.label_studio.label_config import legend_html, rating_config
from mad_backend.store.store import Store
from sync.client import LabelStudioClient
from sync.pictures import PictureHost, UploadedPictures
from sync.projects import ensure_picture_project, ensure_project
from sync.push import Drawn, PushItem, Report, jpeg, push_items

_HELP: Final = """\
<p>How well does the coloured segmentation on the right describe the photo on the left?</p>
<p><b>5</b> excellent &nbsp; <b>4</b> good &nbsp; <b>3</b> fair &nbsp; <b>2</b> poor &nbsp; <b>1</b> bad</p>
<p>Judge both the names of the objects (see the legend) and their outlines; what is not coloured is
background. Press <b>0</b> if the photo does not belong here at all (not a photo, or nothing of the listed
kinds in it).</p>
<p>Press the digit, then submit. Rate what you see; nobody sees your answers while rating.</p>
"""


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
) -> RemoteProject:
    """The rating project of the round, a task per item: photo, overlay, legend, and nothing that tells.

    `host` is where pictures go; None: into a project of the server that only holds pictures. Raises LabelStudioError;
    whatever had been sent by then stays and is not sent again.
    """
    settings = {
        "description": "Rate each segmentation from 1 (bad) to 5 (excellent).",
        "label_config": rating_config(),
        "maximum_annotations": raters,
        "enable_empty_annotation": False,
        "show_collab_predictions": False,
        "show_skip_button": False,
        "sampling": "Uniform sampling",
        "expert_instruction": _HELP,
        "show_instruction": True,
    }
    project = ensure_project(client, store, number, ProjectRole.RATING, title, settings)

    def draw(key: str, item: PushItem) -> Drawn:
        rgb, label_map = item.load()
        photo, drawn = f"{key}-a.jpg", f"{key}-b.jpg"
        text = legend_html(legend(label_map, labels), *label_map.shape)
        own = place.own_address(item.address)
        files = {drawn: jpeg(overlay(rgb, label_map, labels))} | ({} if own else {photo: jpeg(rgb)})
        return files, lambda at: {
            "data": {"image": own or at[photo], "overlay": at[drawn], "legend": text, "item": key}
        }

    place = host or UploadedPictures(client, ensure_picture_project(client, store, number, title))
    push_items(client, store, number, project, items, draw, report, place)
    return project
