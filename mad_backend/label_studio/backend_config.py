"""The label configuration that another party's ML backend is asked with: read, or made from class names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import quoteattr

from mad_backend.core.drawing import VOID_NAME
from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.controls import area_controls, shown_images
from mad_backend.label_studio.label_config import IMAGE_TAG, MASK_TAG, parsed

CONTROLS: Final = ("BrushLabels", "BitmaskLabels", "PolygonLabels", "RectangleLabels", "EllipseLabels")
"""Tags whose regions we understand."""


@dataclass(frozen=True)
class BackendConfig:
    """A configuration as it is sent, the key of a task's `data` that holds the image's address, and its labels."""

    xml: str
    variable: str
    labels: tuple[str, ...]


def bitmask_config(names: Sequence[str]) -> BackendConfig:
    """One bitmask label per name, on one image."""
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in names)
    xml = (
        f'<View>\n  <Image name="{IMAGE_TAG}" value="$image"/>\n'
        f'  <BitmaskLabels name="{MASK_TAG}" toName="{IMAGE_TAG}">\n{labels}  </BitmaskLabels>\n</View>\n'
    )
    return BackendConfig(xml, "image", tuple(names))


def read_config(xml: str) -> BackendConfig:
    """What a label configuration asks for; "void" is not among the labels, since its meaning is fixed.

    Raises LabelFormatError unless brush, bitmask, polygon or rectangle labels stand on one image of the task.
    """
    root = parsed(xml)
    images = shown_images(root)
    controls = [control for control in area_controls(root, CONTROLS) if control.image in images]
    fields = {images[control.image] for control in controls}
    if len(fields) != 1:
        raise LabelFormatError(
            f'wanted one of {", ".join(CONTROLS)} on one <Image value="$image"/>, whose value names a key of the task'
        )
    found = [label.value for control in controls for label in control.labels]
    return BackendConfig(xml, fields.pop(), tuple(dict.fromkeys(n for n in found if n != VOID_NAME)))
