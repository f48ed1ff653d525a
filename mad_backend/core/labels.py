"""Label sets: which class has which id, name and colour, and how a model's classes map to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mad_backend.errors import MadError, ModelError, SettingsError

LabelMap: TypeAlias = NDArray[np.uint8]
"""(H, W) uint8: class ids 0..C-1, or `VOID`."""
RgbImage: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) uint8."""
Mask: TypeAlias = NDArray[np.bool_]
"""(H, W) bool: one class."""

VOID: Final = 255
"""Pixels that no metric counts, as in PASCAL VOC."""


@dataclass(frozen=True)
class LabelClass:
    """One class; `color` is (red, green, blue), 0..255."""

    name: str
    color: tuple[int, int, int]


@dataclass(frozen=True)
class LabelSet:
    """The common classes of target, competitors and annotators; the position is the class id.

    Class 0 is the background (Sec. 3.1 counts c foreground classes, ids 1..c); where `has_background` is
    False every class is foreground (street scenes), and unpainted pixels become void.
    """

    name: str
    classes: tuple[LabelClass, ...]
    has_background: bool = True

    def __post_init__(self) -> None:
        names = [c.name for c in self.classes]
        if not 2 <= len(names) <= VOID:
            raise SettingsError(f'label set "{self.name}" has {len(names)} classes; wanted 2 to {VOID}')
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise SettingsError(
                f'label set "{self.name}" names {twice} twice; every class needs its own name'
            )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    @property
    def foreground_ids(self) -> tuple[int, ...]:
        """Ids over which k runs in Eq. (2)."""
        return tuple(range(1 if self.has_background else 0, len(self.classes)))

    def __len__(self) -> int:
        return len(self.classes)

    def id_of(self, name: str) -> int:
        """Id of a class by name; raises SettingsError naming the known classes."""
        try:
            return self.names.index(name)
        except ValueError:
            raise SettingsError(
                f'class "{name}" is not in label set "{self.name}", which has: {", ".join(self.names)}'
            ) from None

    def palette(self) -> NDArray[np.uint8]:
        """(256, 3) uint8 colours by id; ids without a class are light grey, as void is."""
        colors = np.full((256, 3), 224, np.uint8)
        colors[: len(self.classes)] = [c.color for c in self.classes]
        return colors


IGNORE: Final = "ignore"
"""What a class is mapped to that shall be void."""
REST: Final = "*"
"""In a mapping, every class that is neither named in it nor in the label set."""


def class_table(
    model: str, model_classes: Sequence[str], labels: LabelSet, mapping: Mapping[str, str]
) -> LabelMap:
    """`id_table` of a model, whose `mapping` is settings' `models.<model>.classes`; raises ModelError."""
    key = f"models.{model}.classes"
    return id_table(model_classes, labels, mapping, f'model "{model}"', key, ModelError)


def id_table(
    own_classes: Sequence[str],
    labels: LabelSet,
    mapping: Mapping[str, str],
    what: str,
    key: str,
    error: type[MadError],
) -> LabelMap:
    """(n,) uint8 table from the class ids of `what` to ids of `labels`; ids of no class become `VOID`.

    n is at least 256, so that every uint8 map can be looked up, and more than `own_classes`: its last entry is void.
    `mapping`, the setting `key`: own class name -> label set name, or "ignore" for void; several own classes may go to
    one. A class absent from it has the same name in the label set, or goes where "*" goes. Raises `error` naming every
    unmapped class and every key of `mapping` that is no own class.
    """
    strangers = sorted(set(mapping) - set(own_classes) - {REST})
    if strangers:
        raise error(f"{what} has no class {strangers}, named under {key}; it has: {', '.join(own_classes)}")
    ids = {name: class_id for class_id, name in enumerate(labels.names)} | {IGNORE: VOID}
    rest = mapping.get(REST)
    if rest is not None and rest not in ids:
        raise error(f'{what}: {key} maps "*" to "{rest}"; wanted one of {", ".join(ids)}')
    table = np.full(max(256, len(own_classes) + 1), VOID, np.uint8)
    unmapped = []
    for own_id, own_name in enumerate(own_classes):
        name = mapping.get(own_name, own_name if own_name in ids else rest)
        if name in ids:
            table[own_id] = ids[name]
        else:
            unmapped.append(own_name)
    if unmapped:
        raise error(
            f'{what}: classes {unmapped} are not in label set "{labels.name}"; map each under {key} to one of '
            f'{", ".join(labels.names)}, or to "ignore"; "*" maps all the others'
        )
    return table
