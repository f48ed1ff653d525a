"""Any running Label Studio ML backend as a model: it is sent tasks and answers regions."""

import hashlib
import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from PIL import Image

from mad_backend.core.drawing import VOID_NAME
from mad_backend.core.grid import Grid
from mad_backend.core.labels import IGNORE, REST, VOID, LabelMap, LabelSet, Mask
from mad_backend.core.records import Frame
from mad_backend.errors import LabelFormatError, ModelError
from mad_backend.label_studio.backend_config import BackendConfig, bitmask_config, read_config
from mad_backend.label_studio.regions import areas_of
from mad_backend.label_studio.results import field_of
from mad_backend.models.base import SegmentationModel, missing_file
from mad_backend.models.frame_server import FrameServer, OfferedFrame
from mad_backend.models.label_studio_client import (
    MlBackendClient,
    MlBackendError,
    checked_url,
    credentials,
)
from mad_backend.settings import ModelSettings

log = logging.getLogger(__name__)

MOST_FAILURES: Final = 20
"""So many images in a row without an answer are no longer the images' fault."""

_OF_ONE_TASK: Final = frozenset({400, 422, 500})
"""Statuses with which a backend refuses a whole request for the sake of one of its tasks."""


class LabelStudioModel(SegmentationModel):
    """`url` is the backend's base address; `config` a label configuration (XML), else one is made of class names.

    The backend's labels are the model's own classes: `own_classes`, else those of `config`, else the label set's and
    the keys of `classes`. It fetches frames from a server of ours on loopback (`images: serve`) or opens the images'
    own addresses (`address`). What it leaves unpainted is background, or void where there is no background class.
    Basic authentication: MAD_MODEL_<NAME>_USER and MAD_MODEL_<NAME>_PASSWORD in the environment.
    """

    unused = frozenset(
        {
            "path",
            "architecture",
            "encoder",
            "input_size",
            "mean",
            "std",
            "fit",
            "align_corners",
            "device",
            "precision",
        }
    )
    timeout_s: ClassVar[float] = 100.0
    """For one request, as Label Studio waits (its ML_TIMEOUT_PREDICT)."""
    backoff_s: ClassVar[float] = 0.5
    """Pause before the second try of a request, doubled for each further one."""

    def __init__(self, name: str, settings: ModelSettings, labels: LabelSet, grid: Grid) -> None:
        config = _label_config(name, settings, labels)
        own_classes = settings.own_classes or config.labels or _own_classes(settings, labels)
        self._client = self._connect(name, settings, config)
        with _naming(name):
            self._version = self._client.version()
        super().__init__(name, settings, labels, grid, own_classes)
        self._ids = {VOID_NAME: VOID, **dict(zip(own_classes, self.table.tolist(), strict=False))}
        rest = settings.classes.get(REST)
        self._rest = None if rest is None else VOID if rest == IGNORE else labels.id_of(rest)
        self._variable = config.variable
        self._server: FrameServer | None = None
        self._answering: str | None = None
        self._task_ids = itertools.count(1)
        self._failures = 0

    @property
    def class_ids(self) -> set[int]:
        return super().class_ids | ({0} if self.labels.has_background else set())

    @classmethod
    def files(cls, settings: ModelSettings) -> Iterable[Path]:
        return (settings.config,) if settings.config else ()

    @classmethod
    def fingerprint(cls, name: str, settings: ModelSettings, labels: LabelSet, grid: Grid) -> str:
        """Over address, settings and the version that the backend reports now; raises ModelError without an answer."""
        client = cls._connect(name, settings, _label_config(name, settings, labels))
        try:
            with _naming(name):
                version = client.version()
        finally:
            client.close()
        known = super().fingerprint(name, settings, labels, grid)
        return hashlib.sha256(f"{known}\n{version}".encode()).hexdigest()[:12]

    def predict(self, frames: Sequence[Frame]) -> list[LabelMap | None]:
        """As every model; a frame whose task failed has no answer, and too many of those in a row are a ModelError.

        Raises ModelError also for a label that is none of the model's classes, and when the backend's version changes.
        """
        size = self.settings.batch_size
        maps: list[LabelMap | None] = []
        with _naming(self.name):
            for start in range(0, len(frames), size):
                maps += self._predict_batch(frames[start : start + size])
            if frames:
                self._check_version()
        return maps

    def close(self) -> None:
        """Stops serving frames and closes kept connections."""
        self._client.close()
        if self._server:
            self._server.close()
            self._server = None

    @classmethod
    def _connect(cls, name: str, settings: ModelSettings, config: BackendConfig) -> MlBackendClient:
        return MlBackendClient(
            checked_url(name, settings.url),
            config.xml,
            credentials(name, os.environ),
            cls.timeout_s,
            cls.backoff_s,
        )

    def _predict_batch(self, frames: Sequence[Frame]) -> list[LabelMap | None]:
        with self._offered(frames) as offers:
            tasks = [self._task(offer.address) for offer in offers]
            entries = self._entries(tasks)
            return [
                self._label_map_or_none(frame, entry, offer)
                for frame, entry, offer in zip(frames, entries, offers, strict=True)
            ]

    @contextmanager
    def _offered(self, frames: Sequence[Frame]) -> Iterator[list[OfferedFrame]]:
        """Where the backend finds the frames; those at addresses of their own count as fetched."""
        if self.settings.images == "serve":
            self._server = self._server or FrameServer()
            with self._server.offering([frame.rgb for frame in frames]) as offers:
                yield offers
            return
        for frame in frames:
            if not frame.address:
                raise ModelError(
                    f"image {frame.image_id} has no address that a backend can open; use images: serve"
                )
        yield [OfferedFrame(_absolute(frame.address), b"", was_fetched=True) for frame in frames]

    def _task(self, address: str) -> dict[str, Any]:
        data = {self._variable: address}
        return {"id": next(self._task_ids), "data": data, "meta": {}, "annotations": [], "predictions": []}

    def _entries(self, tasks: list[dict[str, Any]]) -> list[object]:
        """One entry of `results` per task, or the error with which the backend refuses this task alone."""
        try:
            return self._client.predict(tasks)
        except MlBackendError as error:
            if error.status not in _OF_ONE_TASK:
                raise
            if len(tasks) == 1:
                return [error]
        return [entry for task in tasks for entry in self._entries([task])]

    def _label_map_or_none(self, frame: Frame, entry: object, offer: OfferedFrame) -> LabelMap | None:
        try:
            label_map = self._label_map(frame, self._regions(entry, offer))
        except (LabelFormatError, MlBackendError) as error:
            self._failures += 1
            log.warning('model "%s" has no answer for image %s: %s', self.name, frame.image_id, error)
            if self._failures >= MOST_FAILURES:
                raise ModelError(
                    f"{self.settings.url} gave no answer for {self._failures} images in a row, the last of them "
                    f"{frame.image_id}: {error}"
                ) from error
            return None
        self._failures = 0
        return label_map

    def _regions(self, entry: object, offer: OfferedFrame) -> list[object]:
        """`result` of one entry; raises LabelFormatError where it has none, or cannot be about this frame."""
        if not offer.was_fetched:
            # Backends that cannot open an image often answer no regions, which would be read as background.
            raise LabelFormatError(
                f"the backend never fetched the image from {offer.address.rpartition('/')[0]}"
                f"{f' ({entry})' if isinstance(entry, MlBackendError) else ''}; run it on this machine, or use "
                "images: address"
            )
        if isinstance(entry, MlBackendError):
            raise entry
        if isinstance(entry, list) and len(entry) == 1:
            entry = entry[0]  # Label Studio allows several predictions per task.
        self._check_answering(field_of(entry, "model_version"))
        result, fault = field_of(entry, "result"), field_of(entry, "error")
        if not isinstance(result, list) or fault:
            told = self._client.scrub(str(fault))[:200] if fault else type(entry).__name__
            raise LabelFormatError(f"wanted one prediction with a list of regions as result, came {told}")
        return result

    def _label_map(self, frame: Frame, result: list[object]) -> LabelMap:
        is_served = self.settings.images == "serve"
        height, width = frame.rgb.shape[:2] if is_served else frame.size
        painted = np.full((height, width), 0 if self.labels.has_background else VOID, np.uint8)
        for area in areas_of(result):
            class_id = self._ids.get(area.label, self._rest)
            if class_id is None:
                raise ModelError(
                    f'image {frame.image_id}: the backend answered the label "{area.label}", but the model has the '
                    f"classes {', '.join(self._ids)}; list its labels under own_classes and map them under classes"
                )
            if (area.height, area.width) == (width, height) != (height, width):
                raise LabelFormatError(f"region {area.place} is given for the image turned by 90 degrees")
            painted[_resized(area.mask(), height, width)] = class_id
        return painted if is_served else self.grid.label_map(painted)

    def _check_answering(self, version: object) -> None:
        """Compares the versions that predictions name; raises ModelError where there are two."""
        if not version:
            return
        if self._answering not in {None, str(version)}:
            raise ModelError(
                f"{self.settings.url} answered as version {self._answering} and now as {version}; maps of two versions "
                "must not be mixed: start the scan again"
            )
        self._answering = str(version)

    def _check_version(self) -> None:
        """Asks again after the last answer; raises ModelError where it is no longer the version of our key."""
        version = self._client.version()
        if version != self._version:
            raise ModelError(
                f"{self.settings.url} was version {self._version} when it was loaded and is {version} now; maps of two "
                "versions must not be mixed: start the scan again"
            )


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Puts the model's name before errors that do not know it."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f'model "{name}": {error}') from error


def _label_config(name: str, settings: ModelSettings, labels: LabelSet) -> BackendConfig:
    path = settings.config
    if path is None:
        return bitmask_config(_own_classes(settings, labels))
    try:
        return read_config(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise missing_file(name, path, "a label configuration (XML)") from error
    except (UnicodeDecodeError, LabelFormatError) as error:
        raise ModelError(f'model "{name}": label configuration {path}: {error}') from error


def _own_classes(settings: ModelSettings, labels: LabelSet) -> tuple[str, ...]:
    """The labels of a backend that no configuration lists."""
    named = (own for own in settings.classes if own != REST)
    return settings.own_classes or tuple(dict.fromkeys((*labels.names, *named)))


def _absolute(address: str) -> str:
    """The backend has another working folder than we have."""
    return address if "://" in address else str(Path(address).resolve())


def _resized(mask: Mask, height: int, width: int) -> Mask:
    if mask.shape == (height, width):
        return mask
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
