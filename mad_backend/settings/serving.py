"""Settings of `mad serve`: where it listens, how much it takes on, and which images it fetches for tasks."""

from pathlib import Path

from pydantic import Field, PositiveInt, field_validator

from mad_backend.settings.images import Place, StorageOptions, without_secrets
from mad_backend.settings.section import Section


class TaskImagesSettings(Section):
    """Which images that tasks name are fetched; those of the pool and of Label Studio itself always are.

    `hosts`: web servers, "images.example.com", "*.example.com" (all names below it) or "*" (any), with ":8443" where
    the port is not that of the scheme. What they resolve to must be public; with `private_hosts` it may also be private
    or loopback, never link-local. `places`: prefixes in object stores (s3://bucket/photos), read with
    `storage_options`. `roots`: folders of this machine that file addresses may lie in.
    """

    hosts: tuple[str, ...] = ()
    private_hosts: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()
    storage_options: StorageOptions = Field(default_factory=dict)
    roots: tuple[Path, ...] = ()
    max_bytes: int = Field(64 * 2**20, ge=1024)
    max_pixels: int = Field(100_000_000, ge=1024)
    timeout_s: float = Field(20, gt=0, description="for one image, redirects included")

    @field_validator("hosts", "private_hosts")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if "/" in host or "@" in host or not host or ("*" in host.removeprefix("*")):
                raise ValueError(
                    f'"{host}" is no host; wanted images.example.com, *.example.com, 10.0.0.5:9000 or *'
                )
        return tuple(host.lower() for host in hosts)

    @field_validator("places")
    @classmethod
    def _are_stores(cls, places: tuple[Path | str, ...]) -> tuple[Path | str, ...]:
        for place in places:
            if not isinstance(place, str) or place.startswith(("http://", "https://")):
                raise ValueError(
                    f'"{place}" is no store; wanted s3://bucket/photos; folders are named under roots, web servers '
                    "under hosts"
                )
        return places

    @field_validator("storage_options")
    @classmethod
    def _without_secrets(cls, options: StorageOptions) -> StorageOptions:
        return without_secrets(options)


class ServeSettings(Section):
    """Where `mad serve` listens; port 0 takes a free one.

    `public_url` is where browsers and Label Studio reach it, for pictures and webhooks. `workers`: web processes; the
    model has a process of its own. A worker takes `queue` requests for predictions at once and answers more with 503;
    `threads` more are for everything that is quick. `user`: name of basic authentication, whose password is
    MAD_SERVE_PASSWORD. `labels`: label of a connected project -> class, where neither its name nor its predicted_values
    say which. `polygon_tolerance`: how far, in pixels, the outline of a polygon may be from the label map's.
    """

    host: str = "127.0.0.1"
    port: int = Field(9090, ge=0, le=65535)
    public_url: str | None = Field(None, pattern=r"^https?://[^?#]+$")
    workers: int = Field(1, ge=1, le=64)
    threads: PositiveInt = 4
    queue: int = Field(64, ge=1, le=1024)
    max_body_bytes: int = Field(64 * 2**20, ge=2**16)
    user: str = Field("mad", pattern=r"^[^:\s]+$")
    labels: dict[str, str] = Field(default_factory=dict)
    min_region: int = Field(16, ge=1, description="pixels; smaller regions go to what surrounds them")
    max_bytes: int = Field(500_000, ge=10_000, description="of JSON that the regions of one task may have")
    polygon_tolerance: float = Field(1.0, ge=0)
    cache_bytes: int = Field(64 * 2**20, ge=0, description="of label maps a worker keeps, compressed")
    images: TaskImagesSettings = TaskImagesSettings()

    @field_validator("public_url")
    @classmethod
    def _without_slash(cls, url: str | None) -> str | None:
        return url.rstrip("/") if url else url
