"""What a label configuration shows and asks: images, and the controls that mark areas on them, with their labels."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree as ET

_FIELD: Final = re.compile(r"\$([^\s$/{}]+)")
"""A value that is one field of a task's data, and nothing around it."""


@dataclass(frozen=True)
class Label:
    """`name` is what results hold, its alias where it has one; `value` is what people read.

    `predicted` are the classes of a model that it stands for, from its attribute predicted_values.
    """

    name: str
    value: str
    predicted: tuple[str, ...]


@dataclass(frozen=True)
class Control:
    """A tag that marks areas on `image`, the name of an <Image>; `dynamic` is where tasks bring further labels from."""

    tag: str
    name: str
    image: str
    labels: tuple[Label, ...]
    dynamic: str


def shown_images(root: ET.Element) -> dict[str, str]:
    """Name of an <Image> -> the field of a task's data that it shows; without those that show none, or several."""
    found = {tag.get("name", ""): _FIELD.fullmatch(tag.get("value", "")) for tag in root.iter("Image")}
    return {name: match[1] for name, match in found.items() if match}


def area_controls(root: ET.Element, tags: Sequence[str]) -> list[Control]:
    """Those of `tags`, whatever they belong to: all of the first tag in order of the document, then the next ones."""
    return [
        Control(
            tag,
            element.get("name", ""),
            element.get("toName", ""),
            tuple(_label(label) for label in element.iter("Label")),
            element.get("value", ""),
        )
        for tag in tags
        for element in root.iter(tag)
    ]


def _label(element: ET.Element) -> Label:
    value = element.get("value", "")
    predicted = (name.strip() for name in element.get("predicted_values", "").split(","))
    return Label(element.get("alias") or value, value, tuple(name for name in predicted if name))
