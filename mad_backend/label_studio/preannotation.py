"""What annotators start from: a model's label map as regions, without specks, within a budget of bytes."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from mad_backend.core.labels import LabelMap

_SMALLEST_OBJECT: Final = 1 / 256
"""Share of the image from which on a region counts as an object, which no budget may clean away."""


@dataclass(frozen=True)
class Preannotation:
    """Regions of a prediction, and what had to be done to keep it within its budget."""

    regions: tuple[dict[str, Any], ...]
    notes: tuple[str, ...] = ()


def within_budget(
    label_map: LabelMap,
    painted: Callable[[LabelMap], list[dict[str, Any]]],
    *,
    min_region: int,
    max_bytes: int,
) -> Preannotation:
    """The `painted` regions of a (H, W) map whose specks of fewer than `min_region` pixels went to what surrounds them.

    Where their JSON is longer than `max_bytes`, larger specks are cleaned too, twice as large each time; where that
    does not suffice (noise), the labels that take most bytes are left out.
    """
    cleaned = without_specks(label_map, min_region)
    regions = painted(cleaned)
    least, notes = min_region, []
    while json_bytes(regions) > max_bytes and least * 2 <= label_map.size * _SMALLEST_OBJECT:
        least *= 2
        cleaned = without_specks(cleaned, least)
        regions = painted(cleaned)
    if least > min_region:
        notes.append(
            f"regions of fewer than {least} pixels were cleaned away, where {min_region} was wanted, to stay below "
            f"{max_bytes} bytes"
        )
    left_out = []
    while json_bytes(regions) > max_bytes and regions:
        by_label: dict[str, list[dict[str, Any]]] = {}
        for region in regions:
            by_label.setdefault(region["value"][region["type"]][0], []).append(region)
        left_out.append(max(by_label, key=lambda label: json_bytes(by_label[label])))
        del by_label[left_out[-1]]
        regions = [region for some in by_label.values() for region in some]
    if left_out:
        notes.append(
            f"left out {', '.join(sorted(left_out))}: too ragged for {max_bytes} bytes; they have to be drawn"
        )
    return Preannotation(tuple(regions), tuple(notes))


def without_specks(label_map: LabelMap, least: int) -> LabelMap:
    """A copy of a (H, W) map without 4-connected components of fewer than `least` pixels.

    The smallest goes first, to the class most frequent on its border (each side of a pixel counts, of equal classes the
    smallest id wins). A map that is smaller than that stays of one class.
    """
    from mad_backend.label_studio.speck_kernels import give_away_specks, number_components

    cleaned = label_map.copy()
    components, sizes = np.empty(cleaned.shape, np.int32), np.empty(cleaned.size, np.int32)
    while True:
        count = number_components(cleaned, components, sizes)
        specks = np.flatnonzero(sizes[:count] < least)
        if count == 1 or not specks.size:
            return cleaned
        specks = specks[np.argsort(sizes[specks], kind="stable")]
        give_away_specks(cleaned, components, sizes[:count], specks)


def json_bytes(regions: Sequence[dict[str, Any]]) -> int:
    """How many bytes of JSON a prediction's regions take on their way to the server."""
    return len(json.dumps(regions))
