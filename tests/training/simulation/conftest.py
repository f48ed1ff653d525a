"""One small simulation for all tests of what a simulation leaves behind."""

import io
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from tests.training.conftest import settings_of, write_config
from training.simulation.board import Plan
from training.simulation.run import Wanted, simulate_all
from training.simulation.world import World

WANTED = Wanted(("mad", "random"), seeds=1, rounds=1, jobs=2, goal=None)


@dataclass(frozen=True)
class Simulated:
    """A finished simulation: its plan, where it lies, and what was printed."""

    plan: Plan
    printed: str

    @property
    def root(self) -> Path:
        return self.plan.root

    def world(self, strategy: str) -> World:
        return World.open_for(self.plan.config, self.plan.folder(strategy, 0), self.plan.cache, 0)

    def again(self) -> str:
        """Runs the same command once more; returns what is printed."""
        return run(self.plan.config, self.root)


def run(config: Path, root: Path) -> str:
    printed = io.StringIO()
    simulate_all(WANTED, config, root, None, None, None, Console(file=printed, width=140))
    return printed.getvalue()


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Simulated:
    """MAD and random, one seed, one round; tests only read it."""
    folder = tmp_path_factory.mktemp("simulated")
    training = {**settings_of(scenes, folder)["training"], "learning_rates": [1e-3], "epochs": 1}
    overrides = {"training": training, "rating": {"n4": 4}, "test_set": {"size": 3, "near_duplicates": None}}
    config = write_config(folder, scenes, overrides)
    root = folder / "simulation"
    return Simulated(Plan(config, root, WANTED.strategies, 1, 1), run(config, root))
