"""Settings of images: the sources of D, S(0) and T(0), and the grid on which models see them."""

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self, TypeAlias

from pydantic import Field, PlainValidator, field_validator, model_validator

from mad_backend.core.grid import Fit
from mad_backend.settings.section import Section


class GridSettings(Section):
    """The evaluation grid on which models predict and are compared (Sec. 4.1)."""

    size: int = Field(513, ge=16, le=4096)
    fit: Fit = Fit.LETTERBOX


CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS (the place of a key file)",
    "azure": "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "http": "a line for the host in ~/.netrc",
}
"""Extra of this package that reads a kind of address -> where its credentials come from, never settings."""

_SECRET = re.compile("secret|key|token|passw|credential|connection_string|sas|authorization", re.IGNORECASE)
_NO_SECRETS = frozenset({"anon", "cloud", "google_default"})
"""Ways to log in that gcsfs takes as `token`."""


def _place(given: object) -> Path | str:
    """A Path for what lies on this machine; an address (s3://...) stays text, for Path would take its slashes."""
    if isinstance(given, Path):
        return given
    if not isinstance(given, str) or not given:
        raise ValueError(f"wanted a path or an address, got {given!r}")
    scheme, is_address, rest = given.partition("://")
    if not is_address or scheme == "file":
        return Path(rest if is_address else given)
    if "::" in given:
        raise ValueError("chained addresses (a::b) are not read; give one address")
    login, has_login, _ = rest.partition("/")[0].rpartition("@")
    if has_login and ":" in login:
        raise ValueError(f"a password does not belong into an address; {_where_from()}")
    return given


def _where_from() -> str:
    return "credentials come from: " + "; ".join(f"{extra}: {names}" for extra, names in CREDENTIALS.items())


Place = Annotated[Path | str, PlainValidator(_place)]
"""A `Path` on this machine, or the `str` of an address that fsspec reads."""


StorageOptions: TypeAlias = dict[str, bool | int | str]
"""What an fsspec file system is given."""


def without_secrets(options: StorageOptions) -> StorageOptions:
    """The options as they are; raises ValueError if one is a secret, which settings do not hold."""
    secret = sorted(k for k, v in options.items() if _SECRET.search(k) and v not in _NO_SECRETS)
    if secret:
        raise ValueError(f'"{secret[0]}" is a secret, and secrets are not settings; {_where_from()}')
    return options


class LabelStudioSource(Section):
    """A Label Studio project, or one view (tab) of it; `field` names the image where tasks have several."""

    project: int = Field(ge=1)
    view: int | None = Field(None, ge=1)
    field: str | None = None


class Origin(StrEnum):
    """Where a source's images come from: the key of `SourceSettings` that says so."""

    IMAGES = "images"
    MANIFEST = "manifest"
    LABEL_STUDIO = "label_studio"
    VOC = "voc"
    CITYSCAPES = "cityscapes"
    COCO = "coco"
    MMSEG = "mmseg"


_IDS = frozenset({"own_classes", "classes", "reduce_zero_label", "ignore_ids"})
_COMPANIONS = {
    Origin.IMAGES: _IDS | {"list", "masks"},
    Origin.MANIFEST: _IDS | {"images", "masks"},
    Origin.LABEL_STUDIO: _IDS | {"masks"},
    Origin.VOC: _IDS | {"split"},
    Origin.CITYSCAPES: frozenset({"split", "classes"}),
    Origin.COCO: frozenset({"images", "masks", "classes"}),
    Origin.MMSEG: frozenset({"images", "split", "classes"}),
}
"""Origin -> which keys may stand beside it."""


class SourceSettings(Section):
    """Images of one origin, named by exactly one of these keys.

    - `images`: every image below a folder or an address (s3://bucket/prefix), or those named in the text file `list`
      (one id a line, no suffix);
    - `manifest`: a .txt, .csv, .jsonl or .parquet file that names images; relative names are relative to the
      manifest's folder, or to `images` where that is given too;
    - `label_studio`: the tasks of a Label Studio project;
    - `voc`: a folder in PASCAL VOC's layout; `split` names a list in ImageSets/Segmentation, without it every image;
    - `cityscapes`: a folder in Cityscapes' layout; `split` is a folder of leftImg8bit;
    - `coco`: a JSON file of COCO instances or panoptic segments; `images` is what its file names are relative to, and
      `masks` holds panoptic PNGs (default: the folder beside the file that is called like it);
    - `mmseg`: an mmsegmentation configuration; `split` is train, val or test, or a dotted name of the dataset in it,
      and `images` what the configuration's relative paths are relative to.

    `name` prefixes image ids ("voc/2007_000033"). `masks` holds label maps as index PNGs of the same id; those of the
    pool are known to the simulated raters and annotators only. `storage_options` go to the fsspec file system.

    `classes` maps the source's own class names as a model's does. Cityscapes, COCO and mmsegmentation know the names;
    elsewhere index PNGs have the label set's ids, or those of `own_classes`, by position (`voc` with `classes`: VOC's).
    `ignore_ids` of the PNGs are void, as 255 is; `reduce_zero_label`: 0 is void and 1 the first class.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    images: Place | None = None
    list: Path | None = None
    manifest: Place | None = None
    label_studio: LabelStudioSource | None = None
    voc: Path | None = None
    cityscapes: Path | None = None
    coco: Path | None = None
    mmseg: Path | None = None
    split: str | None = Field(None, pattern=r"^[A-Za-z0-9_.-]+$")
    masks: Path | None = None
    classes: dict[str, str] = Field(
        default_factory=dict,
        description='own class: class of the label set, or "ignore"; "*": all the others',
    )
    own_classes: tuple[str, ...] | None = Field(None, min_length=1, max_length=255)
    ignore_ids: tuple[Annotated[int, Field(ge=0, le=255)], ...] = ()
    reduce_zero_label: bool = False
    storage_options: StorageOptions = Field(default_factory=dict)

    @property
    def origin(self) -> Origin:
        """The one origin; `images` is only one where no other is given."""
        return self._origins()[-1]

    def _origins(self) -> Sequence[Origin]:
        return [origin for origin in Origin if getattr(self, origin) is not None]

    @field_validator("storage_options")
    @classmethod
    def _without_secrets(cls, options: StorageOptions) -> StorageOptions:
        return without_secrets(options)

    @model_validator(mode="after")
    def _of_one_origin(self) -> Self:
        given = self._origins()
        is_one = len(given) == 1 or (
            len(given) == 2 and given[0] == Origin.IMAGES and "images" in _COMPANIONS[given[1]]
        )
        if not is_one:
            raise ValueError(
                f'source "{self.name}" needs one origin: images, manifest (images may say what its names are relative '
                f"to), voc, cityscapes, coco, mmseg or label_studio; got {' and '.join(given) or 'none'}"
            )
        origin = given[-1]
        if self.list is not None and origin is not Origin.IMAGES:
            raise ValueError(
                f'source "{self.name}": list chooses from a folder; a {origin} names its images itself'
            )
        others = self.model_fields_set - {"name", "storage_options", origin} - _COMPANIONS[origin]
        strangers = sorted(key for key in others if getattr(self, key) is not None)
        if strangers:
            raise ValueError(
                f'source "{self.name}": {strangers[0]} says nothing about a source of {origin}; beside it may stand '
                f"{', '.join(sorted(_COMPANIONS[origin]))}"
            )
        if origin is Origin.IMAGES and str(self.images).startswith(("http://", "https://")):
            raise ValueError(
                f'source "{self.name}": a web server does not tell what it holds; name its images in a manifest'
            )
        return self

    @model_validator(mode="after")
    def _says_what_its_origin_needs(self) -> Self:
        if self.origin is Origin.COCO and self.images is None:
            raise ValueError(
                f'source "{self.name}": coco needs images, the folder or address that its file names are relative to'
            )
        if self.origin is Origin.CITYSCAPES and self.split is None:
            raise ValueError(f'source "{self.name}": cityscapes needs split: train, val, ...')
        has_names = self.own_classes is not None or "own_classes" not in _COMPANIONS[self.origin]
        if self.classes and not has_names and self.origin is not Origin.VOC:
            raise ValueError(
                f'source "{self.name}": classes are given by name, and its PNGs have ids; name those in own_classes'
            )
        return self
