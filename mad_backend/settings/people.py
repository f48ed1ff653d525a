"""Settings of the work with people: Label Studio, its pictures, and the three projects of a round."""

from pathlib import Path
from typing import Literal, Self, TypeAlias

from pydantic import Field, model_validator

from mad_backend.settings.section import Section


class RatingSettings(Section):
    """Who rates and how many images become S (Sec. 4.1); `mos_ceiling`: only images rated so or worse.

    `blind`: each of `people` (emails at Label Studio, as many as `raters`) has a project of their own, so that nobody
    can look up what others answered; else all rate in one project and the first `raters` of them count.
    """

    raters: int = Field(3, ge=1, le=20)
    n4: int = Field(100, ge=1)
    mos_ceiling: float | None = Field(None, ge=1, le=5)
    blind: bool = False
    people: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _a_project_each(self) -> Self:
        if len(set(self.people)) != len(self.people):
            raise ValueError("rating.people names somebody twice")
        if self.blind and len(self.people) != self.raters:
            raise ValueError(
                f"rating.blind wants rating.people with as many emails as rating.raters ({self.raters}), got "
                f"{len(self.people)}"
            )
        return self


class SegmentationSettings(Section):
    """What annotators start from.

    `start_from`: the target's label map; that of the competing model with the best IoU on T(0) for the image's main
    class; or none. `further`: every model's map can be looked at and copied beside it. Regions of fewer than
    `min_region` pixels go to what surrounds them. Pre-annotations of a task stay below `max_bytes` of JSON each.
    """

    start_from: Literal["target", "best", "none"] = "target"
    further: bool = False
    min_region: int = Field(16, ge=1, description="pixels; 1: nothing is cleaned")
    max_bytes: int = Field(500_000, ge=10_000)


class CheckSettings(Section):
    """The cross-check (Sec. 4.1): somebody other than its author looks at every map; off: maps count as drawn."""

    enabled: bool = True


Media: TypeAlias = Literal["upload", "serve", "local-files", "cloud", "as-is"]


class LocalFilesSettings(Section):
    """`root` is Label Studio's LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT as it is seen from here; `folder` lies in it."""

    root: Path
    folder: str = Field("mad", pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$")
    root_there: str | None = Field(None, description="the same folder as Label Studio sees it; null: as here")


class CloudSettings(Section):
    """A bucket for pictures, `prefix` an address (s3://bucket/mad). Credentials come from the environment.

    `endpoint_url`: of an S3-compatible store. `presign`: browsers fetch from the store (which then needs CORS) and not
    through Label Studio.
    """

    prefix: str = Field(pattern=r"^(s3|gs|az)://[^/]+(/.*)?$")
    endpoint_url: str | None = None
    region: str | None = None
    presign: bool = False


class LabelStudioSettings(Section):
    """The server; the token comes from the environment, MAD_LABEL_STUDIO_TOKEN.

    `media` is where pictures lie: `upload` into Label Studio; `serve` by `mad serve`, at serve.public_url;
    `local-files` and `cloud` in a storage of the project; `as-is`: photos stay at their own addresses, overlays are
    uploaded.
    """

    url: str = "http://127.0.0.1:8080"
    title: str = Field("MAD", min_length=1, max_length=24)
    ca_file: Path | None = Field(None, description="PEM certificates to trust beside the usual ones")
    client_cert: Path | None = Field(
        None, description="PEM with certificate and key, where the server wants one"
    )
    verify: bool = Field(True, description="false: any certificate is accepted; for tests of a server only")
    media: Media = "upload"
    local_files: LocalFilesSettings | None = None
    cloud: CloudSettings | None = None
    webhooks: bool = Field(True, description="hasten pulls, where serve.public_url is set")

    @model_validator(mode="after")
    def _has_a_place_for_pictures(self) -> Self:
        if self.media == "local-files" and self.local_files is None:
            raise ValueError("label_studio.media local-files wants label_studio.local_files.root")
        if self.media == "cloud" and self.cloud is None:
            raise ValueError("label_studio.media cloud wants label_studio.cloud.prefix")
        return self
