"""Settings of images: the sources of D, S(0) and T(0), and the grid on which models see them."""

import re
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


class SourceSettings(Section):
    """Images of one origin, named by exactly one of these keys.

    - `images`: every image below a folder or an address (s3://bucket/prefix), or those named in the text file `list`
      (one id a line, no suffix);
    - `manifest`: a .txt, .csv, .jsonl or .parquet file that names images; relative names are relative to the
      manifest's folder, or to `images` where that is given too;
    - `label_studio`: the tasks of a Label Studio project.

    `name` prefixes image ids ("voc/2007_000033"). `masks` holds label maps as index PNGs of the same id; those of the
    pool are known to the simulated raters and annotators only. `storage_options` go to the fsspec file system.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    images: Place | None = None
    list: Path | None = None
    manifest: Place | None = None
    label_studio: LabelStudioSource | None = None
    masks: Path | None = None
    storage_options: StorageOptions = Field(default_factory=dict)

    @field_validator("storage_options")
    @classmethod
    def _without_secrets(cls, options: StorageOptions) -> StorageOptions:
        return without_secrets(options)

    @model_validator(mode="after")
    def _of_one_origin(self) -> Self:
        given = [key for key in ("images", "manifest", "label_studio") if getattr(self, key) is not None]
        if given not in (["images"], ["manifest"], ["images", "manifest"], ["label_studio"]):
            raise ValueError(
                f'source "{self.name}" needs one origin: images, manifest (images may say what its names are relative '
                f"to) or label_studio; got {' and '.join(given) or 'none'}"
            )
        if self.list is not None and given != ["images"]:
            raise ValueError(
                f'source "{self.name}": list chooses from a folder; a {given[-1]} names its images itself'
            )
        if given == ["images"] and str(self.images).startswith(("http://", "https://")):
            raise ValueError(
                f'source "{self.name}": a web server does not tell what it holds; name its images in a manifest'
            )
        return self
