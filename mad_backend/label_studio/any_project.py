"""Labels of any project's interface, whatever its tags are called, and the classes they stand for."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mad_backend.core.drawing import VOID_NAME
from mad_backend.core.labels import IGNORE, REST, VOID, LabelSet
from mad_backend.errors import LabelFormatError, SettingsError
from mad_backend.label_studio.controls import Label, area_controls, shown_images
from mad_backend.label_studio.label_config import parsed
from mad_backend.label_studio.results import Region, field_of

_CONTROLS: Final = (
    "BrushLabels",
    "BitmaskLabels",
    "PolygonLabels",
    "RectangleLabels",
    "EllipseLabels",
    "Labels",
)


@dataclass(frozen=True)
class MaskInterface:
    """How one image is labelled: the name of its tag, the field of tasks it shows, and its labels as results hold them.

    `labels` lacks those that tasks bring themselves (<BrushLabels value="$names"/>).
    """

    image_tag: str
    field: str
    labels: tuple[str, ...]

    def regions_of(self, result: Sequence[Region]) -> list[Region]:
        """Those of an annotation's regions that belong to this image; those without `to_name` too."""
        return [r for r in result if field_of(r, "to_name") in (self.image_tag, None)]


def mask_interface(config: str, field: str | None = None) -> MaskInterface:
    """The image that is labelled in a project with this label configuration, `field` where there are several.

    Raises LabelFormatError if there is no such image, more than one, or if nothing marks areas on it.
    """
    root = parsed(config)
    shown = shown_images(root)
    chosen = {name: value for name, value in shown.items() if field in (None, value)}
    if len(chosen) != 1:
        wanted = "an image" if field is None else f'an image under "{field}"'
        fields = ", ".join(sorted(shown.values())) or "none"
        raise LabelFormatError(
            f"wanted one <Image> that shows {wanted}, found {len(chosen)}; fields: {fields}"
        )
    ((image_tag, shown_field),) = chosen.items()
    controls = [control for control in area_controls(root, _CONTROLS) if control.image == image_tag]
    if not controls:
        raise LabelFormatError(
            f'nothing marks areas on the image "{image_tag}"; wanted {", ".join(_CONTROLS)}'
        )
    names = [label.name for control in controls for label in control.labels]
    return MaskInterface(image_tag, shown_field, tuple(dict.fromkeys(names)))


def class_ids(labels: LabelSet) -> dict[str, int]:
    """Id by name; "ignore" and "void" are 255, unless a class is called so."""
    own = {name: class_id for class_id, name in enumerate(labels.names)}
    return {IGNORE: VOID, VOID_NAME: VOID, **own}


def check_classes(given: Mapping[str, str], labels: LabelSet, said: str) -> None:
    """Raises SettingsError if `given`, label -> class, names a class that is not there; `said` is where it stands."""
    ids = class_ids(labels)
    for label, name in given.items():
        if name not in ids:
            raise SettingsError(
                f'{said} "{label}={name}": label set "{labels.name}" has no class "{name}"; wanted one of '
                f"{', '.join(ids)}"
            )


def labels_of_classes(found: Sequence[Label], labels: LabelSet, given: Mapping[str, str]) -> dict[int, str]:
    """Class id (255: void) -> name of the label that stands for it, in order of ids; several may have one label.

    What `given` (label -> class) says goes before predicted_values, those before the same name, and that before one
    which differs in case, blanks, "_" and "-"; of labels that stand for one class equally the first counts. What stays
    unpainted (background, or void where there is none) has a label only if `given` or predicted_values say so.
    """
    ids = class_ids(labels)
    loosely = {_loose(name): ids[name] for name in reversed(ids)}
    chosen: dict[int, str] = {}
    open_labels = []
    for label in found:
        name = given.get(label.name, given.get(label.value))
        if name is None:
            open_labels.append(label)
        else:
            chosen.setdefault(ids[name], label.name)
    for label in tuple(open_labels):
        for name in label.predicted:
            class_id = ids.get(name, loosely.get(_loose(name)))
            if class_id is not None:
                chosen.setdefault(class_id, label.name)
                open_labels = [other for other in open_labels if other is not label]
    unpainted = 0 if labels.has_background else VOID
    exact = {label.name: ids.get(label.name, ids.get(label.value)) for label in open_labels}
    for label in open_labels:
        class_id = exact[label.name]
        if class_id is not None and class_id != unpainted:
            chosen.setdefault(class_id, label.name)
    for label in open_labels:
        class_id = loosely.get(_loose(label.name), loosely.get(_loose(label.value)))
        if exact[label.name] is None and class_id is not None and class_id != unpainted:
            chosen.setdefault(class_id, label.name)
    return dict(sorted(chosen.items()))


def _loose(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


@dataclass(frozen=True)
class LabelMapping:
    """Which class of `labels` a label of another project is: of the same name, or as `given` says (label -> class).

    `given` may name "ignore" as class, for pixels that do not count, and "*" as label, for all others. Raises
    SettingsError for a class that is not there.
    """

    labels: LabelSet
    given: Mapping[str, str]

    def __post_init__(self) -> None:
        check_classes(self.given, self.labels, "--map")

    @property
    def _ids(self) -> dict[str, int]:
        return class_ids(self.labels)

    def id_of(self, label: str) -> int | None:
        """Class id, 255 for void, or None if the label maps to nothing."""
        name = self.given.get(label, label if label in self._ids else self.given.get(REST))
        return None if name is None else self._ids[name]

    def ids_of(self, names: Iterable[str]) -> dict[str, int]:
        """Class id by label; raises LabelFormatError naming the labels that map to nothing, and what to give."""
        found = {name: self.id_of(name) for name in names}
        unmapped = [name for name, class_id in found.items() if class_id is None]
        if unmapped:
            asked = " ".join(f'--map "{name}=..."' for name in unmapped[:8])
            rest = self.labels.names[0] if self.labels.has_background else IGNORE
            raise LabelFormatError(
                f"no class for {'label' if len(unmapped) == 1 else 'labels'} {', '.join(unmapped)}; say which with "
                f'{asked}, or --map "*={rest}" for all the rest; classes: {", ".join(self._ids)}'
            )
        return {name: class_id for name, class_id in found.items() if class_id is not None}
