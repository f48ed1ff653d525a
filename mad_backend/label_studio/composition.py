"""An annotation's regions, of whatever kind, as one label map with exactly one class per pixel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.drawing import VOID_NAME
from mad_backend.core.labels import VOID, LabelMap, LabelSet
from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.regions import SOLID_ALPHA, Area, AreaKind, labelled_areas
from mad_backend.label_studio.results import Region, field_of

_BAND: Final = 1 << 16
"""Pixels painted together, for the sake of memory: a large photo may have hundreds of regions."""


@dataclass(frozen=True)
class Composed:
    """A label map with exactly one class per pixel, and what was odd about the regions it was made of.

    `changed_share` is the share of pixels, 0 to 1, that differ from what the prediction alone gives; None without one.
    """

    label_map: LabelMap
    notes: tuple[str, ...] = ()
    changed_share: float | None = None


def compose(
    result: Sequence[Region],
    labels: LabelSet,
    height: int,
    width: int,
    parent: Sequence[Region] | None = None,
    names: Mapping[str, int] | None = None,
) -> Composed:
    """(height, width) label map of an annotation; `parent` is the prediction it was started from.

    `names` says which class id (`VOID` too) each label stands for, where the configuration is not ours. Regions
    overlap: array order is paint order and the later one wins, except that pixels a person added beat those left as
    predicted (adding to an old region keeps its early place). Void wins within each of the two. Pixels of no region
    are background, or void where there is none; so they are where `result` is empty. Regions without label and
    keypoints are left out. Raises LabelFormatError naming the region for another image size, a rotation, an unknown
    label or type, two labels, or pixels that cannot be decoded, and where nothing but regions without label is left.
    """
    ids = {**{name: i for i, name in enumerate(labels.names)}, VOID_NAME: VOID} if names is None else names
    decoder = _Decoder(height, width, ids, [], {})
    layers, notes = decoder.layers(result)
    if notes and not layers:
        raise LabelFormatError(
            f"no region has a label ({'; '.join(notes)}); choose one for each, or draw anew"
        )
    predicted: list[_Layer] | None = None
    try:
        predicted = None if parent is None else decoder.layers(parent)[0]
    except LabelFormatError as error:
        notes.append(f"the prediction it was started from cannot be read ({error}); later regions won")
    label_map = np.full((height, width), 0 if labels.has_background else VOID, np.uint8)
    changes, odd = _paint(label_map, decoder.alphas, layers, predicted or [], labels)
    changed_share = None if predicted is None else changes / label_map.size
    return Composed(label_map, (*notes, *odd), changed_share)


@dataclass(frozen=True)
class _Layer:
    """One region: its class id, and which of the decoder's `alphas` says where it is."""

    area: Area
    class_id: int
    row: int


@dataclass(frozen=True)
class _Decoder:
    """Regions of one image as layers; `alphas` are (height * width,) uint8 each.

    `rows` finds bitmasks that were decoded before: most regions are as they were predicted.
    """

    height: int
    width: int
    ids: Mapping[str, int]
    alphas: list[NDArray[np.uint8]]
    rows: dict[str, int]

    def layers(self, result: Sequence[Region]) -> tuple[list[_Layer], list[str]]:
        """In paint order but void last; and what was left out or is odd."""
        areas, left_out = labelled_areas(result)
        notes = [f"{said} and was left out" for said in left_out]
        layers = [_Layer(area, self._class_id(area), self._row(area)) for area in areas]
        by_id: dict[str, int] = {}
        for area in areas:
            first = by_id.setdefault(area.region_id, area.place) if area.region_id else area.place
            if first != area.place:
                notes.append(f"regions {first} and {area.place} have one id; both count")
        return sorted(layers, key=lambda layer: layer.class_id == VOID), notes

    def _class_id(self, area: Area) -> int:
        if area.label not in self.ids:
            raise LabelFormatError(
                f'region {area.place} has the label "{area.label}", which stands for no class; known are: '
                f"{', '.join(self.ids)}"
            )
        return self.ids[area.label]

    def _row(self, area: Area) -> int:
        if (area.height, area.width) != (self.height, self.width):
            raise LabelFormatError(
                f"region {area.place} was drawn on an image of height {area.height}, width {area.width}; the image "
                f"has {self.height}, {self.width}"
            )
        url = str(field_of(area.value, "imageDataURL")) if area.kind is AreaKind.BITMASK else ""
        if url in self.rows:
            return self.rows[url]
        self.alphas.append(area.opacity().ravel())
        if url:
            self.rows[url] = len(self.alphas) - 1
        return len(self.alphas) - 1


def _paint(
    label_map: LabelMap,
    alphas: Sequence[NDArray[np.uint8]],
    layers: Sequence[_Layer],
    predicted: Sequence[_Layer],
    labels: LabelSet,
) -> tuple[int, list[str]]:
    """Paints `layers`, of which `predicted` are older; how many pixels are not as predicted, and what is odd."""
    from mad_backend.label_studio.composition_kernels import paint

    rows, before = (
        np.array([(layer.row, layer.class_id) for layer in some], np.int64).reshape(-1, 2)
        for some in (layers, predicted)
    )
    areas, lost = np.zeros(len(layers), np.int64), np.zeros((256, 256), np.int64)
    flat, changes = label_map.reshape(-1), 0
    for start in range(0, flat.size if alphas else 0, _BAND):
        band = np.stack([alpha[start : start + _BAND] for alpha in alphas])
        changes += paint(band, rows, before, SOLID_ALPHA, flat[start : start + _BAND], areas, lost)
    odd = [
        _nowhere(layer.area, alphas[layer.row]) for layer, area in zip(layers, areas, strict=True) if not area
    ]
    for loser, winner in np.argwhere(lost > 0).tolist():
        one, other = _name(loser, labels), _name(winner, labels)
        odd.append(f"{lost[loser, winner]} pixels lie in regions of {one} and of {other}: {other} won")
    if layers and (label_map == VOID).all():
        odd.append("no pixel has a class: all are void")
    return changes, odd


def _nowhere(area: Area, alpha: NDArray[np.uint8]) -> str:
    """What to say of a region that covers no pixel; raises LabelFormatError for a mask of zeros and ones."""
    most = int(alpha.max())
    if most == 1:
        raise area.too_faint(most)
    # What an eraser leaves of a whole region is a faint fringe.
    why = "is nowhere half opaque" if most else "marks no pixel"
    return f'region {area.place} ("{area.label}") {why}'


def _name(class_id: int, labels: LabelSet) -> str:
    return VOID_NAME if class_id == VOID else labels.names[class_id]
