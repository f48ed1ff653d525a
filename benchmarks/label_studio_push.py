"""Sending M and S to a real Label Studio, beside the SDK's own way on the same server."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.figure import DATA, print_absent, print_figure
from benchmarks.own_server import fresh_server, sdk_seconds
from mad_backend.core.drawing import overlay
from mad_backend.core.labels import LabelMap, LabelSet, RgbImage
from mad_backend.label_studio.label_config import rating_config
from mad_backend.settings_file import load_label_set
from sync.push import PushItem, jpeg
from sync.rating_project import push_rating
from sync.segmentation_project import push_segmentation

RATED, DRAWN = 2000, 200
PHOTOS = 100
"""Different ones; they are sent again and again under other names, which neither side can take advantage of."""
KINDS = ("photos", "overlays", "maps")
VOC = DATA / "voc"
LABELS = Path(__file__).parents[1] / "configs" / "label_sets" / "voc.yaml"


def main() -> None:
    """Real photos of about 500x375 with human maps; the server runs on the same machine, all counted."""
    if not VOC.is_dir():
        print_absent("push to Label Studio", DATA)
        return
    labels = load_label_set(LABELS)
    masks = sorted((VOC / "SegmentationClass").glob("*.png"))[:PHOTOS]
    items = [PushItem(f"image-{n:05d}", partial(load, masks[n % len(masks)])) for n in range(RATED)]
    with fresh_server() as (server, store, root):
        client = server.client()
        draw_s = seconds(lambda: draw_all(masks, labels, root)) / len(masks)
        encode_s = seconds(lambda: [jpeg(load(mask)[0]) for mask in masks]) / len(masks)
        folders = {kind: str(root / kind) for kind in KINDS}
        rated_s = seconds(lambda: push_rating(client, store, 1, "Push", labels, items, report=silent))
        some = items[:DRAWN]
        drawn_s = seconds(
            lambda: push_segmentation(
                client, store, 1, "Push", labels, some, model_version="m", report=silent
            )
        )
        rating = client.create_project(title="SDK rating", label_config=rating_config())
        peer_rated_s = sdk_seconds(server, "import_rating", rating.project_id, count=RATED, **folders)
        brushes = client.create_project(title="SDK brushes", label_config=brush_config(labels))
        names = [c.name for c in labels.classes]
        peer_drawn_s = sdk_seconds(
            server, "import_segmentation", brushes.project_id, count=DRAWN, names=names, **folders
        )
    name = f"push of {RATED} rating tasks, drawn and uploaded"
    print_figure(name, "s", rated_s, 60.0, "wanted", 1.0, less_is_better=True)
    peer = "drawn one after another, then label_studio_sdk import_tasks, pictures inside the tasks"
    print_figure(name, "s", rated_s, draw_s * RATED + peer_rated_s, peer, 1.0, less_is_better=True)
    name = f"push of {DRAWN} pre-annotated segmentation tasks"
    print_figure(name, "s", drawn_s, 20.0, "wanted", 1.0, less_is_better=True)
    peer = "photos encoded, then label_studio_sdk import_tasks with its brush masks, photos inside the tasks"
    print_figure(name, "s", drawn_s, encode_s * DRAWN + peer_drawn_s, peer, 1.0, less_is_better=True)


def load(mask: Path) -> tuple[RgbImage, LabelMap]:
    """A photo and its human map, as the pool would give them."""
    photo = Image.open(VOC / "JPEGImages" / f"{mask.stem}.jpg").convert("RGB")
    return np.asarray(photo), np.asarray(Image.open(mask))


def draw_all(masks: list[Path], labels: LabelSet, root: Path) -> None:
    """Folders of files for the peer, which cannot draw."""
    for mask in masks:
        rgb, label_map = load(mask)
        files = {
            "photos": jpeg(rgb),
            "overlays": jpeg(overlay(rgb, label_map, labels)),
            "maps": mask.read_bytes(),
        }
        for kind, content in files.items():
            (root / kind).mkdir(exist_ok=True)
            (root / kind / mask.name).write_bytes(content)


def brush_config(labels: LabelSet) -> str:
    """What the SDK's brush masks fit to."""
    names = "".join(f'<Label value="{c.name}"/>' for c in labels.classes)
    brushes = f'<BrushLabels name="mask" toName="image">{names}<Label value="void"/></BrushLabels>'
    return f'<View><Image name="image" value="$image"/>{brushes}</View>'


def seconds(work: Callable[[], object]) -> float:
    """By the clock, once: the server keeps what it was sent."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def silent(_done: int, _total: int) -> None:
    """No progress shown."""


if __name__ == "__main__":
    main()
