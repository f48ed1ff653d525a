"""The world of a simulation: a project whose people know the truth of every image, and W, which nobody may choose."""

import hashlib
import json
from functools import cached_property
from pathlib import Path

import numpy as np

from mad_backend.core.records import PoolImage
from mad_backend.errors import PoolError
from mad_backend.pool.sources import LabelledImage, list_labelled
from mad_backend.pool.truths import Truth
from mad_backend.settings.simulated import SimulatedSettings
from mad_backend.settings_file import load_label_set, load_settings
from mad_backend.store.store import Store
from training.project import Project

PLACES = {"workspace", "cache", "database", "schedule", "serve", "label_studio", "scan"}
"""Settings that change nothing of what a trial comes to."""
TOLD = {"seed", "label_set", "pool", "s0", "t0", "models", "mirrors"}
"""Settings that say where something lies or which it is: classes, images and weights are told by what they are."""


class World(Project):
    """A project in which the label map of every pool image is known to the oracle people alone."""

    @classmethod
    def open_for(cls, config: Path, workspace: Path, cache: Path, seed: int) -> "World":
        """The world of `config` under `seed`, with files of its own in `workspace`; raises SettingsError."""
        settings = load_settings(config, SimulatedSettings)
        workspace.mkdir(parents=True, exist_ok=True)
        own = {
            "workspace": workspace,
            "cache": settings.cache or cache,
            "seed": seed,
            "database": f"sqlite:///{workspace / 'mad.sqlite3'}",
        }
        settings = settings.model_copy(update=own)
        return cls(config, settings, load_label_set(settings.label_set), Store(settings.database_url))

    @cached_property
    def truths(self) -> dict[str, Truth]:
        """Of every image of the pool, by image id."""
        return {item.image.image_id: item.truth for item in self._dealt[2]}

    @cached_property
    def pool(self) -> dict[str, PoolImage]:
        return {item.image.image_id: item.image for item in self._dealt[2]}

    @cached_property
    def s0(self) -> list[LabelledImage]:
        return self._dealt[0] or super().s0

    @cached_property
    def t0(self) -> list[LabelledImage]:
        return self._dealt[1] or super().t0

    @cached_property
    def open_images(self) -> list[str]:
        """W: image ids of a share of the pool, drawn at random by the seed."""
        ids = sorted(self.pool)
        count = max(1, round(len(ids) * self.settings.simulation.open_share))
        chosen = np.random.default_rng([self.settings.seed, 1]).permutation(len(ids))[:count]
        return [ids[i] for i in sorted(chosen)]

    def labelled(self, image_ids: list[str]) -> list[LabelledImage]:
        """Images of the pool with their true label maps."""
        return [LabelledImage(self.pool[i], self.truths[i]) for i in image_ids]

    def fingerprint(self, strategy: str, seed: int) -> str:
        """Stands for all that each round of a trial depends on: settings, weights, images, strategy, seed."""
        settings = self.settings.model_dump(mode="json", exclude=PLACES | TOLD)
        pool = [image for _, image in sorted(self.pool.items())]
        images = [(i.image_id, i.etag) for i in (*pool, *(item.image for item in (*self.s0, *self.t0)))]
        keys = [self.target_key(self.current_target()), *self.competitor_keys().values()]
        what = json.dumps([settings, repr(self.labels), images, keys, strategy, seed], sort_keys=True)
        return hashlib.sha256(what.encode()).hexdigest()

    @cached_property
    def _dealt(self) -> tuple[list[LabelledImage], list[LabelledImage], list[LabelledImage]]:
        """(S(0), T(0), D); the first two empty where settings name their sources.

        Images are dealt out by a seed of their own: the target may have been trained on this S(0), so it is the same
        for every trial.
        """
        found = list_labelled(self.settings.pool, self.settings.mirrors, self.labels)
        split = self.settings.simulation.split
        if split is None:
            return [], [], found
        order = np.random.default_rng(0).permutation(len(found))
        first, second = round(len(found) * split.s0), round(len(found) * (split.s0 + split.t0))
        parts = [sorted(order[a:b]) for a, b in ((0, first), (first, second), (second, len(found)))]
        if not all(parts) or second - first < 2:
            raise PoolError(
                f"simulation.split leaves {', '.join(str(len(p)) for p in parts)} images for S(0), T(0) and the pool; "
                f"wanted at least 1, 2 and 1: give more than {len(found)} images, or other shares"
            )
        s0, t0, pool = ([found[i] for i in part] for part in parts)
        return s0, t0, pool
