"""The label configurations (XML) of our Label Studio projects, and whether somebody changed one.

Both were looked at in Label Studio 1.23.2 at 1366x768. The class names `lsf-*` belong to that version;
should they change, the side panels come back and nothing else breaks.
"""

import hashlib
from collections.abc import Sequence
from html import escape
from typing import Final
from xml.etree import ElementTree as ET
from xml.sax.saxutils import quoteattr

from mad_backend.core.drawing import VOID_COLOR, VOID_NAME, hex_color
from mad_backend.core.labels import LabelSet
from mad_backend.errors import LabelFormatError, SettingsError

MASK_TAG: Final = "mask"
IMAGE_TAG: Final = "image"
QUALITY_TAG: Final = "quality"
OUT_OF_DOMAIN: Final = "ood"
VERDICT_TAG: Final = "verdict"
ERRORS_TAG: Final = "errors"

_LONGEST: Final = 2**20
_DEEPEST: Final = 100
"""Characters and levels of tags of a configuration; those of people with a thousand labels have a tenth."""

# Choices stand above the images: below, a portrait image would push them out of sight.
_RATING: Final = """\
<View className="rt">
  <Style>
    .lsf-sidepanels { padding-right: 0 !important; }
    .lsf-sidepanels__wrapper { display: none !important; }
    .rt { max-width: max(1320px, min(96vw, calc((100vh - 280px) * 2.6))); margin: 0 auto; }
    .rt .lsf-toolbar { display: none !important; }
    .rt .q { border: 1px solid #8888; border-radius: 8px; padding: 2px 14px 0; margin-bottom: 4px; }
    .rt .q label { font-size: 18px; margin-right: 10px; }
    .rt:has(.rt-square) { max-width: max(620px, calc((100vh - 280px) * 2)); }
    .rt:has(.rt-portrait) { max-width: max(620px, calc((100vh - 280px) * 1.5)); }
    .rt:has(.rt-narrow) { max-width: max(620px, calc((100vh - 280px) * 1.13)); }
    .rt .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 12px; }
  </Style>
  <View className="q">
    <Choices name="quality" toName="overlay" choice="single-radio" layout="inline" required="true"
             requiredMessage="Rate 1-5, or 0 for out of domain">
      <Choice value="1 bad" alias="1" hotkey="1"/>
      <Choice value="2 poor" alias="2" hotkey="2"/>
      <Choice value="3 fair" alias="3" hotkey="3"/>
      <Choice value="4 good" alias="4" hotkey="4"/>
      <Choice value="5 excellent" alias="5" hotkey="5"/>
      <Choice value="out of domain" alias="ood" hotkey="0"/>
    </Choices>
  </View>
  <HyperText name="legend" value="$legend" inline="true"/>
  <View className="pair">
    <View>
      <Header value="Original" size="6"/>
      <Image name="image" value="$image" maxWidth="100%" zoom="false" zoomControl="false"
             rotateControl="false"/>
    </View>
    <View>
      <Header value="Segmentation to rate" size="6"/>
      <Image name="overlay" value="$overlay" maxWidth="100%" zoom="false" zoomControl="false"
             rotateControl="false"/>
    </View>
  </View>
</View>
"""

# No rotation: a rotated mask would have to be turned back. No smoothing: zoomed mask pixels stay crisp. `taken` is so
# many pixels of the page's height that the image ends above the bottom bar, below two rows of labels.
_DRAWING: Final = """\
  <BitmaskLabels name="mask" toName="image" showInline="true" opacity="0.6">
{labels}
  </BitmaskLabels>
  <Image name="image" value="$image" zoom="true" zoomControl="true" brightnessControl="true"
         contrastControl="true" rotateControl="false" smoothing="false" maxHeight="calc(100vh - {taken}px)"/>
</View>
"""

# The slider of the brush's size is moved so that it does not cover labels.
_SEGMENTATION: Final = """\
<View className="sg">
  <Style>
    .sg .lsf-tool__controls-body { transform: translateY(64px); }
  </Style>
"""

_LETTERS: Final = "qwtasdfgzxcjkl"
_LABEL_KEYS: Final = (*"1234567890", *_LETTERS, *(f"shift+{letter}" for letter in _LETTERS))
"""Of the labels, in order. Label Studio's own choice has "e" too, its eraser's key: whoever erases in a chosen region
would turn that into the label. Its other tools are b, h and v; y, m, n, u, i, o, p belong to the cross-check."""

# Keys that no label has.
_CHECK: Final = """\
<View className="ck">
  <Style>
    .ck .q { border: 1px solid #8888; border-radius: 8px; padding: 6px 14px; margin-bottom: 4px;
              display: flex; flex-wrap: wrap; gap: 0 40px; align-items: center; }
    .ck .q .lsf-choices { margin: 0; }
    .ck .q label { font-size: 16px; margin-right: 6px; }
    .ck .lsf-tool__controls-body { transform: translateY(64px); }
  </Style>
  <View className="q">
    <Choices name="verdict" toName="image" choice="single-radio" layout="inline" required="true"
             requiredMessage="Accept, Corrected or Reject?">
      <Choice value="Accept" alias="accepted" hotkey="y"/>
      <Choice value="Corrected" alias="corrected" hotkey="m"/>
      <Choice value="Reject" alias="rejected" hotkey="n"/>
    </Choices>
    <Choices name="errors" toName="image" choice="multiple" layout="inline">
      <Choice value="boundary" hotkey="u"/>
      <Choice value="missing" hotkey="i"/>
      <Choice value="wrong class" hotkey="o"/>
      <Choice value="void" hotkey="p"/>
    </Choices>
  </View>
"""

_SWATCH: Final = (
    '<span style="margin-right:16px;white-space:nowrap"><span style="display:inline-block;width:14px;'
    'height:14px;margin-right:5px;border:1px solid #555;background:{color}"></span>{name}</span> '
)


_SHAPES: Final = ((0.565, "narrow"), (0.75, "portrait"), (1.0, "square"))
"""Widest width / height of each shape that the style above knows; anything wider fits as it is."""


def rating_config() -> str:
    """ACR scale 1 to 5 by digit key, 0 for out of domain; task data: image, overlay, legend (html), item."""
    return _RATING


def segmentation_config(labels: LabelSet) -> str:
    """Pixel labelling with one label per class, and one for void; task data: image, item.

    The background has a label only where class 0 is the background. Raises SettingsError if a class is
    called "void".
    """
    return _SEGMENTATION + _drawing(labels, 216)


def check_config(labels: LabelSet) -> str:
    """A verdict by key, types of errors, and the masks to correct; task data: image, item.

    Raises SettingsError if a class is called "void".
    """
    return _CHECK + _drawing(labels, 266)


def _drawing(labels: LabelSet, taken: int) -> str:
    if VOID_NAME in labels.names:
        raise SettingsError(
            f'label set "{labels.name}" has a class called "{VOID_NAME}", the name of the label for pixels '
            "that do not count; give the class another name"
        )
    entries = [(c.name, c.color) for c in labels.classes] + [(VOID_NAME, VOID_COLOR)]
    keys = [f' hotkey="{key}"' for key in _LABEL_KEYS] + [""] * len(entries)
    lines = [
        f"    <Label value={quoteattr(name)} background={quoteattr(hex_color(color))}{key}/>"
        for (name, color), key in zip(entries, keys, strict=False)
    ]
    return _DRAWING.format(labels="\n".join(lines), taken=taken)


def picture_config() -> str:
    """Shows one picture and asks nothing; for the project that only holds pictures."""
    return '<View><Image name="image" value="$image"/></View>'


def image_fields(config: str) -> tuple[str, ...]:
    """Which fields of a task's data any label configuration shows as images (<Image value="$photo"/>: photo).

    Raises LabelFormatError if `config` is not XML.
    """
    values = [element.get("value", "") for element in parsed(config).iter("Image")]
    return tuple(dict.fromkeys(value[1:] for value in values if value.startswith("$")))


def signature(config: str) -> str:
    """SHA-256 (hex) of what a label configuration means; blanks, comments, attribute order do not count.

    Raises LabelFormatError if `config` is not XML.
    """
    root = parsed(config)
    for element in root.iter():
        element.text = " ".join((element.text or "").split())
        element.tail = None
    canonical = ET.canonicalize(ET.tostring(root, encoding="unicode"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def parsed(config: str) -> ET.Element:
    """The root of any label configuration; raises LabelFormatError if `config` is not XML, or like none people write.

    Bounded, since whoever asks for predictions sends one: expat bounds what entities grow to.
    """
    if len(config) > _LONGEST:
        raise LabelFormatError(
            f"label configuration has {len(config):,} characters; {_LONGEST:,} are read at most"
        )
    try:
        root = ET.fromstring(config)  # noqa: S314 - expat bounds entities, and opens no others
    except (ET.ParseError, UnicodeEncodeError) as error:
        raise LabelFormatError(f"not XML ({error}), where a label configuration is wanted") from error
    level, depth = [root], 0
    while level:
        level, depth = [child for element in level for child in element], depth + 1
        if depth > _DEEPEST:
            raise LabelFormatError(f"label configuration nests more than {_DEEPEST} tags in each other")
    return root


def legend_html(entries: Sequence[tuple[str, str]], height: int, width: int) -> str:
    """Colour swatches with names, from `drawing.legend`; styles inline, since Label Studio keeps those.

    The shape of the picture stands in it as a class, by which the page is narrowed so far that pictures of `height` and
    `width` fit on the screen whole: tasks cannot set the width of an image in any other way.
    """
    shape = next((name for limit, name in _SHAPES if width <= limit * height), "")
    mark = f'<span class="rt-{shape}"></span>' if shape else ""
    if not entries:
        return f"{mark}<span>no object found: everything is background</span>"
    return mark + "".join(_SWATCH.format(color=color, name=escape(name)) for name, color in entries)
