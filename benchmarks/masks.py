"""What people drew, as label maps, and label maps as what they start from: 200 tasks of 500 x 375, five classes."""

import base64
import io
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.figure import DATA, median_rate, print_absent, print_figure
from mad_backend.core.labels import LabelClass, LabelMap, LabelSet, Mask
from mad_backend.label_studio.answers import DrawingRules, own_interface, preannotate, regions_of
from mad_backend.label_studio.brush_rle import encode_alpha
from mad_backend.label_studio.composition import compose
from mad_backend.label_studio.preannotation import without_specks

HEIGHT, WIDTH, TASKS = 375, 500, 200
LABELS = LabelSet("five", tuple(LabelClass(f"class {i}", (50 * i, 0, 0)) for i in range(5)))
LEAST = 16

Result = list[dict[str, Any]]
Task = tuple[Result, Result]
"""What a person sent, and the prediction they started from."""


def street_maps() -> list[LabelMap]:
    """Human maps of CamVid, its eleven classes and void taken together to five."""
    found = []
    for path in sorted((DATA / "camvid" / "masks").glob("*.png"))[: TASKS + 1]:
        with Image.open(path) as image:
            label_map = np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.NEAREST))
        found.append((label_map % len(LABELS)).astype(np.uint8))
    return found


def main() -> None:
    """One core, one process; process time."""
    if not DATA.is_dir():
        print_absent("masks", DATA)
        return
    maps = street_maps()
    begun = [regions_of(label_map, LABELS) for label_map in maps[1:]]
    drawn = [regions_of(label_map, LABELS) for label_map in maps[:-1]]
    one_each = [[new[0], *old[1:]] for new, old in zip(drawn, begun, strict=True)]
    _compose("one region of each corrected", list(zip(one_each, begun, strict=True)))
    _compose("every region drawn anew", list(zip(drawn, begun, strict=True)))
    strokes = [[_brush(r, label_map) for r in result] for result, label_map in zip(drawn, maps, strict=False)]
    _compose("every region as brush strokes", list(zip(strokes, begun, strict=True)))
    _preannotate(maps[:50])


def _compose(kind: str, tasks: Sequence[Task]) -> None:
    ours = _seconds(lambda: [compose(result, LABELS, HEIGHT, WIDTH, parent) for result, parent in tasks])
    name = f"{len(tasks)} masks decoded and composed, {kind}"
    print_figure(name, "s", ours, 2.0, "the two seconds that are wanted", 1.0, less_is_better=True)
    if "brush" not in kind:
        some = tasks[: len(tasks) // 5]
        peer = _seconds(lambda: [_plain_compose(*task) for task in some], 3) * len(tasks) / len(some)
        print_figure(name, "s", ours, peer, "Pillow and numpy, region by region", 1.0, less_is_better=True)


def _plain_compose(result: Result, parent: Result) -> LabelMap:
    """The same rules, without notes and void."""
    predicted = {_class_id(region): _plain_mask(region) for region in parent}
    layers = [(_class_id(region), _plain_mask(region)) for region in result]
    label_map = np.zeros((HEIGHT, WIDTH), np.uint8)
    for class_id, mask in layers:
        label_map[mask & predicted.get(class_id, np.False_)] = class_id
    for class_id, mask in layers:
        label_map[mask & ~predicted.get(class_id, np.False_)] = class_id
    return label_map


def _plain_mask(region: dict[str, Any]) -> Mask:
    data = base64.b64decode(region["value"]["imageDataURL"].partition(",")[2])
    mask: Mask = np.array(Image.open(io.BytesIO(data)))[..., 3] >= 128
    return mask


def _class_id(region: dict[str, Any]) -> int:
    return LABELS.names.index(region["value"]["bitmasklabels"][0])


def _brush(region: dict[str, Any], label_map: LabelMap) -> dict[str, Any]:
    (name,) = region["value"]["bitmasklabels"]
    code = encode_alpha((label_map == LABELS.names.index(name)) * np.uint8(255))
    return region | {"type": "brushlabels", "value": {"format": "rle", "rle": code, "brushlabels": [name]}}


def _preannotate(maps: Sequence[LabelMap]) -> None:
    from scipy import ndimage

    def scipy_components(label_map: LabelMap) -> None:
        for class_id in np.unique(label_map):
            numbers, _ = ndimage.label(label_map == class_id)
            np.bincount(numbers.ravel())

    ours = median_rate(lambda: [without_specks(m, LEAST) for m in maps], len(maps), 3)
    peer = median_rate(lambda: [scipy_components(m) for m in maps], len(maps), 3)
    print_figure("specks cleaned", "maps/s", ours, peer, "scipy.ndimage.label, finding them only", 1.0)
    interface, rules = own_interface(LABELS), DrawingRules(LEAST, 500_000)
    whole = median_rate(lambda: [preannotate(m, interface, LABELS, rules) for m in maps], len(maps), 3)
    plain = median_rate(lambda: [_plain_regions(m) for m in maps], len(maps), 3)
    print_figure("pre-annotations", "maps/s", whole, plain, "Pillow, a PNG a class, nothing cleaned", 0.8)


def _plain_regions(label_map: LabelMap) -> list[str]:
    found = []
    for class_id in range(1, len(LABELS)):
        pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
        pixels[label_map == class_id] = (*LABELS.classes[class_id].color, 255)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="PNG")
        found.append(base64.b64encode(file.getvalue()).decode())
    return found


def _seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Process time, the median of `repeats` after one warm-up."""
    work()
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return statistics.median(times)


if __name__ == "__main__":
    main()
