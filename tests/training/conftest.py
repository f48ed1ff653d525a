"""A small project of drawn scenes: a narrow Fast-SCNN against two folders of label maps with planted errors."""

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

with warnings.catch_warnings():
    # torch, mmengine and mmseg warn about each other when they are first imported.
    warnings.simplefilter("ignore")
    from mad_backend.models.torchvision_operators import define_missing_operators

    define_missing_operators()
    from mmseg.utils import register_all_modules

    import training.finetune  # noqa: F401 - imported late by the step that trains
    from training.rounds import RoundRunner

    register_all_modules()

from mad_backend.core.labels import LabelMap
from mad_backend.pool.images import read_label_map
from mad_backend.pool.truths import Truth
from tests.training.oracle_people import OraclePeople
from training.finetuning.samples import Sample
from training.project import Project
from training.scenes import BOAT, CAR, HOUSE, PERSON, TREE, write_dataset
from training.start import start_round

CONFIGS = Path(__file__).parents[2] / "configs"
POOL, S0, T0 = 36, 20, 8

TARGET_CONFIG = f"""\
_base_ = "{CONFIGS}/mmseg/scenes_fastscnn.py"
model = dict(data_preprocessor=dict(size=(48, 64)))
train_pipeline = [dict(type="RandomFlip", prob=0.5), dict(type="PackSegInputs")]
"""


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums over another number of threads round differently; subprocesses of the tests have one thread too."""
    before, variable = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    yield
    torch.set_num_threads(before)
    if variable is None:
        del os.environ["OMP_NUM_THREADS"]
    else:
        os.environ["OMP_NUM_THREADS"] = variable


def shifted(truth: LabelMap, n: int) -> LabelMap:
    """Everything a little to the right, and every other image with houses for trees."""
    moved = np.roll(truth, 6 + n % 12, axis=1)
    return swapped_classes(moved, HOUSE, TREE) if n % 2 else moved


def confused(truth: LabelMap, n: int) -> LabelMap:
    """People for cars, and no boat in every third image."""
    wrong = swapped_classes(truth, CAR, PERSON)
    return np.where(wrong == BOAT, 0, wrong).astype(np.uint8) if n % 3 == 0 else wrong


def swapped_classes(label_map: LabelMap, one: int, other: int) -> LabelMap:
    table = np.arange(256, dtype=np.uint8)
    table[one], table[other] = other, one
    return table[label_map]


def write_answers(data: Path, folder: Path, err: Callable[[LabelMap, int], LabelMap]) -> None:
    """The label maps of a model that makes the errors `err`, on the pool and on T(0)."""
    for split, masks in (("pool", "hidden_masks"), ("t0", "masks")):
        (folder / split).mkdir(parents=True)
        for n, path in enumerate(sorted((data / split / masks).glob("*.png"))):
            Image.fromarray(err(read_label_map(path), n)).save(folder / split / path.name)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pool/, s0/, t0/ and models/; tests only read it."""
    data = tmp_path_factory.mktemp("scenes")
    write_dataset(data, seed=5, pool=POOL, s0=S0, t0=T0)
    write_answers(data, data / "models" / "shifted", shifted)
    write_answers(data, data / "models" / "confused", confused)
    (data / "models" / "target.py").write_text(TARGET_CONFIG)
    return data


def settings_of(data: Path, workspace: Path) -> dict[str, Any]:
    """Settings of a project that runs a round in seconds."""
    weights = CONFIGS / "mmseg" / "weights" / "scenes_fastscnn.safetensors"
    models = data / "models"
    return {
        "workspace": str(workspace),
        "seed": 3,
        "label_set": str(CONFIGS / "label_sets" / "scenes.yaml"),
        "pool": [{"name": "pool", "images": f"{data}/pool/images", "masks": f"{data}/pool/hidden_masks"}],
        "s0": [{"name": "s0", "images": f"{data}/s0/images", "masks": f"{data}/s0/masks"}],
        "t0": [{"name": "t0", "images": f"{data}/t0/images", "masks": f"{data}/t0/masks"}],
        "grid": {"size": 64},
        "models": {
            "name": "scenes",
            "target": {
                "kind": "mmseg",
                "config": str(models / "target.py"),
                "path": str(weights),
                "fit": "keep",
            },
            "competing": {
                "shifted": {"kind": "folder", "path": str(models / "shifted")},
                "confused": {"kind": "folder", "path": str(models / "confused")},
            },
        },
        "selection": {"n3": 2},
        "rating": {"n4": 6},
        "test_set": {"size": 4},
        "training": {
            "recipe": "paper",
            "workers": 0,
            "learning_rates": [1e-3, 3e-3],
            "epochs": 2,
            "batch_size": 2,
            "threads": 1,
        },
        "schedule": {"tick_s": 0.5, "lease_s": 3},
    }


class MakeProject(Protocol):
    def __call__(self, name: str = "project", **overrides: Any) -> Project:
        """A project in a workspace of its own; `overrides` replace top-level keys of the settings."""


def write_config(folder: Path, data: Path, overrides: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "mad.yaml"
    config.write_text(yaml.safe_dump({**settings_of(data, folder), **overrides}), encoding="utf-8")
    return config


@pytest.fixture
def make_project(tmp_path: Path, scenes: Path) -> Iterator[MakeProject]:
    opened: list[Project] = []

    def make(name: str = "project", **overrides: Any) -> Project:
        opened.append(Project.open(write_config(tmp_path / name, scenes, overrides)))
        return opened[-1]

    yield make
    for project in opened:
        project.store.close()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Iterator[Project]:
    """A project after two whole rounds with oracle people; tests only read it."""
    project = Project.open(write_config(tmp_path_factory.mktemp("finished"), scenes, {}))
    for _ in range(2):
        start_round(project, None)
        runner(project).tick()
    yield project
    project.store.close()


def runner(project: Project, *, isolate: bool = False) -> RoundRunner:
    """Drives rounds with people who know the truth."""
    return RoundRunner(project, OraclePeople(project, 3), isolate=isolate)


def samples_of(folder: Path, masks: str, count: int) -> list[Sample]:
    images = sorted((folder / "images").glob("*.jpg"))[:count]
    return [Sample(p.stem, p, Truth(folder / masks / f"{p.stem}.png")) for p in images]
