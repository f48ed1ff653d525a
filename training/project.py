"""Everything of one project in one place: settings, label set, store, caches, and where files lie."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet
from mad_backend.core.records import ModelVersion, PoolImage
from mad_backend.core.rounds import Round
from mad_backend.errors import PoolError, StoreError
from mad_backend.models.base import SegmentationModel
from mad_backend.models.registry import load_model, stored_key
from mad_backend.pool.features import FeatureStore
from mad_backend.pool.files import shown
from mad_backend.pool.ledger import Ledger
from mad_backend.pool.predictions import PredictionStore
from mad_backend.pool.reader import PoolReader
from mad_backend.pool.scores import ScoreStore
from mad_backend.pool.sources import LabelledImage, list_images, list_labelled
from mad_backend.settings import Settings, ValidationMode
from mad_backend.settings_file import load_label_set, load_settings
from mad_backend.store.store import Store
from mad_backend.targets import load_target, target_key


@dataclass(frozen=True)
class Project:
    """One target model's project; `config` is the settings file that subprocesses are given."""

    config: Path
    settings: Settings
    labels: LabelSet
    store: Store

    @classmethod
    def open(cls, config: Path) -> "Project":
        """Reads settings and opens the store; raises SettingsError or StoreError."""
        settings = load_settings(config)
        settings.workspace.mkdir(parents=True, exist_ok=True)
        return cls(config, settings, load_label_set(settings.label_set), Store(settings.database_url))

    @property
    def grid(self) -> Grid:
        return Grid(self.settings.grid.size, self.settings.grid.fit)

    @property
    def predictions(self) -> PredictionStore:
        return PredictionStore((self.settings.cache or self.settings.workspace) / "predictions")

    @property
    def scores(self) -> ScoreStore:
        return ScoreStore((self.settings.cache or self.settings.workspace) / "scores")

    @property
    def features(self) -> FeatureStore:
        return FeatureStore((self.settings.cache or self.settings.workspace) / "features")

    def open_ledger(self) -> Ledger:
        """What is known of the content of every image that was read."""
        return Ledger((self.settings.cache or self.settings.workspace) / "ledger")

    @property
    def masks_root(self) -> Path:
        """Label maps that annotators drew."""
        return self.settings.workspace / "masks"

    @cached_property
    def pool(self) -> dict[str, PoolImage]:
        """D by image id."""
        images = list_images(self.settings.pool, self.settings.mirrors)
        return {image.image_id: image for image in images}

    @cached_property
    def s0(self) -> list[LabelledImage]:
        return list_labelled(self.settings.s0, self.settings.mirrors, self.labels)

    @cached_property
    def t0(self) -> list[LabelledImage]:
        return list_labelled(self.settings.t0, self.settings.mirrors, self.labels)

    def forget_images(self) -> None:
        """Lets D, S(0) and T(0) be listed anew when next asked for: pools grow while `mad schedule` runs."""
        for name in ("pool", "s0", "t0"):
            self.__dict__.pop(name, None)

    @cached_property
    def reader(self) -> PoolReader:
        """Reads the images of D, S(0) and T(0), wherever they lie."""
        return PoolReader.of((*self.settings.pool, *self.settings.s0, *self.settings.t0))

    def local_file(self, image: PoolImage) -> Path:
        """A file of this machine for training, which opens it once an epoch; fetched once where it lies elsewhere."""
        return self.reader.local_file(image, self.settings.workspace / "training" / "images")

    @property
    def t0_dev(self) -> list[LabelledImage]:
        """The part of T(0) that chooses epoch and learning rate (method.md section 6)."""
        return self.t0 if self.settings.training.validation is ValidationMode.PAPER else self.t0[::2]

    @property
    def t0_report(self) -> list[LabelledImage]:
        """The part of T(0) that reports quote; never looked at in training."""
        return self.t0 if self.settings.training.validation is ValidationMode.PAPER else self.t0[1::2]

    @property
    def counted_classes(self) -> tuple[int, ...] | None:
        """Ids over which mIoU is averaged, or None for all that are present."""
        names = self.settings.evaluation.classes
        return tuple(self.labels.id_of(name) for name in names) or None

    def check_images(self) -> None:
        """Raises PoolError when one image id stands for two files in pool and T(0): predictions go by id."""
        for item in self.t0:
            twin = self.pool.get(item.image.image_id)
            if twin and twin.path != item.image.path:
                raise PoolError(
                    f'"{twin.image_id}" is {shown(twin.path)} in the pool and {shown(item.image.path)} in t0; give '
                    "the sources different names"
                )
            if twin:
                raise PoolError(
                    f'"{twin.image_id}" is in the pool and in t0; the pool must not hold test images'
                )

    def competitors(self) -> list[SegmentationModel]:
        """g_1..g_m, loaded."""
        competing = self.settings.models.competing
        return [load_model(name, model, self.labels, self.grid) for name, model in sorted(competing.items())]

    def target(self, version: ModelVersion) -> SegmentationModel:
        """f(i), loaded."""
        return load_target(version, self.settings, self.labels, self.grid)

    def competitor_keys(self) -> dict[str, str]:
        """Name -> key of every competing model's stored label maps, without loading any."""
        competing = sorted(self.settings.models.competing.items())
        return {name: stored_key(name, model, self.labels, self.grid) for name, model in competing}

    def target_key(self, version: ModelVersion) -> str:
        """Key of f(i)'s stored label maps, without loading it."""
        return target_key(version, self.settings, self.labels, self.grid)

    def current_target(self) -> ModelVersion:
        """The promoted version, or f(0) as settings describe it before anything was promoted."""
        first = ModelVersion(f"{self.settings.models.name}@0", 0, None, datetime.now(UTC))
        return self.store.versions.promoted() or first

    def target_of(self, found: Round) -> ModelVersion:
        """f(i-1): the version that was promoted when the round was made, whatever is promoted since."""
        if found.target is None:
            raise StoreError(f"round {found.number} has no target version; start rounds with `mad new-round`")
        return self.store.versions.get(found.target)
