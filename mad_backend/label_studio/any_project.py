"""Labels of any project's interface, whatever its tags are called, and the classes they stand for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mad_backend.core.drawing import VOID_NAME
from mad_backend.core.labels import IGNORE, REST, VOID, LabelSet
from mad_backend.errors import LabelFormatError, SettingsError
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
    images = {tag.get("name", ""): tag.get("value", "") for tag in root.iter("Image")}
    shown = {name: value[1:] for name, value in images.items() if value.startswith("$")}
    chosen = {name: value for name, value in shown.items() if field in (None, value)}
    if len(chosen) != 1:
        wanted = "an image" if field is None else f'an image under "{field}"'
        fields = ", ".join(sorted(shown.values())) or "none"
        raise LabelFormatError(
            f"wanted one <Image> that shows {wanted}, found {len(chosen)}; fields: {fields}"
        )
    ((image_tag, shown_field),) = chosen.items()
    controls = [tag for name in _CONTROLS for tag in root.iter(name) if tag.get("toName") == image_tag]
    if not controls:
        raise LabelFormatError(
            f'nothing marks areas on the image "{image_tag}"; wanted {", ".join(_CONTROLS)}'
        )
    names = [label.get("alias", label.get("value", "")) for tag in controls for label in tag.iter("Label")]
    return MaskInterface(image_tag, shown_field, tuple(dict.fromkeys(names)))


@dataclass(frozen=True)
class LabelMapping:
    """Which class of `labels` a label of another project is: of the same name, or as `given` says (label -> class).

    `given` may name "ignore" as class, for pixels that do not count, and "*" as label, for all others. Raises
    SettingsError for a class that is not there.
    """

    labels: LabelSet
    given: Mapping[str, str]

    def __post_init__(self) -> None:
        strangers = {label: name for label, name in self.given.items() if name not in self._ids}
        if strangers:
            label, name = next(iter(strangers.items()))
            raise SettingsError(
                f'--map "{label}={name}": label set "{self.labels.name}" has no class "{name}"; wanted one of '
                f"{', '.join(self._ids)}"
            )

    @property
    def _ids(self) -> dict[str, int]:
        own = {name: class_id for class_id, name in enumerate(self.labels.names)}
        return {IGNORE: VOID, VOID_NAME: VOID, **own}

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
