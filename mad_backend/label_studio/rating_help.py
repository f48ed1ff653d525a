"""What raters are told before they begin, with drawn examples of a good, a fair and a bad segmentation.

Label Studio 1.23.2 takes data: addresses, inline SVG and styles out of instructions; coloured table cells stay.
"""

from itertools import groupby
from typing import Final

import numpy as np

from mad_backend.core.drawing import hex_color
from mad_backend.core.labels import LabelMap, RgbImage

_DOG: Final = (230, 20, 20)
_CAT: Final = (20, 60, 255)
_OPACITY: Final = 0.6
_SCENE: Final = (
    "........................",
    "........................",
    "................##......",
    "...............#####....",
    "....#..........######...",
    "....##.........####.....",
    "......##......##........",
    "......############......",
    "......############......",
    "......############......",
    "......##......##........",
    "......##......##........",
    "......##......##........",
    "........................",
)
"""A dog on a meadow, a letter per cell."""
_HORIZON: Final = 6
_CELL: Final = 6
"""Pixels of the screen."""

_TEXT: Final = """\
<p>How well does the coloured segmentation on the right describe the photo on the left? Judge the names of the
objects (see the legend) and their outlines; what is not coloured is background.</p>
<table cellpadding="6"><tbody><tr>{pictures}</tr><tr>{captions}</tr></tbody></table>
<p><b>5</b> excellent &nbsp; <b>4</b> good &nbsp; <b>3</b> fair &nbsp; <b>2</b> poor &nbsp; <b>1</b> bad &nbsp;
<b>0</b> out of domain: not a photo, or nothing of the listed kinds in it.</p>
<p>Press the digit, then submit. Rate what you see; nobody sees your answers while rating.</p>
"""


def rating_help() -> str:
    """HTML for the instructions of the rating project, about 12 kB."""
    photo, dog = _photo()
    blob = np.zeros_like(dog)
    blob[5:11, 4:18] = 1
    legs = np.zeros_like(dog)
    legs[10:13, 6:16] = 2 * dog[10:13, 6:16]
    legs[6:10, 6:9] = 1
    shown = (
        (photo, "photo"),
        (_painted(photo, dog), "<b>5</b>: the dog, whole<br>and nothing else"),
        (_painted(photo, blob), "<b>3</b>: a dog, but<br>its outline is coarse"),
        (_painted(photo, legs), "<b>1</b>: most is missing,<br>a part is called cat"),
    )
    return _TEXT.format(
        pictures="".join(f"<td>{_table(picture)}</td>" for picture, _ in shown),
        captions="".join(f'<td align="center" valign="top">{caption}</td>' for _, caption in shown),
    )


def _photo() -> tuple[RgbImage, LabelMap]:
    """The scene (14, 24, 3), and its true label map."""
    dog = np.array([[cell == "#" for cell in row] for row in _SCENE], np.uint8)
    photo = np.empty((*dog.shape, 3), np.uint8)
    photo[:_HORIZON] = (175, 205, 235)
    photo[_HORIZON:] = (120, 165, 80)
    photo[dog == 1] = (125, 85, 50)
    return photo, dog


def _painted(photo: RgbImage, label_map: LabelMap) -> RgbImage:
    """The photo with dog (1) and cat (2) in their colours; without borders, which would fill such small pictures."""
    picture = photo.astype(np.float32)
    for class_id, color in ((1, _DOG), (2, _CAT)):
        mask = label_map == class_id
        picture[mask] = (1 - _OPACITY) * picture[mask] + _OPACITY * np.asarray(color, np.float32)
    return np.rint(picture).astype(np.uint8)


def _table(picture: RgbImage) -> str:
    """A picture as a table; neighbours of one colour share a cell, and rows that are alike share a row."""
    width = picture.shape[1]
    # Without a row of single cells the widths of joined ones would be anybody's guess.
    ruler = f'<td width="{_CELL}" height="0"></td>' * width
    rows = [f"<tr>{ruler}</tr>"]
    for line, alike in groupby(picture.tolist()):
        height = _CELL * len(list(alike))
        cells = [
            f'<td height="{height}" colspan="{len(list(run))}" bgcolor="{hex_color(tuple(color))}"></td>'
            for color, run in groupby(line)
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<table width="{width * _CELL}" border="0" cellspacing="0" cellpadding="0"><tbody>{"".join(rows)}'
        "</tbody></table>"
    )
