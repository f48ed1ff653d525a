"""Backends of other parties and models of them; all are closed when a test ends."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet
from mad_backend.models.label_studio_model import LabelStudioModel
from mad_backend.settings import ModelSettings
from tests.models.ml_backend import MlBackend, running

GRID = Grid(64)
Start = Callable[..., MlBackend]
Load = Callable[..., LabelStudioModel]


class Quick(LabelStudioModel):
    timeout_s = 5.0
    backoff_s = 0.01


@pytest.fixture
def start() -> Iterator[Callable[..., MlBackend]]:
    """Starts a backend; all stop at the test's end."""
    with ExitStack() as stack:
        yield lambda **values: stack.enter_context(running(MlBackend(**values)))


@pytest.fixture
def load(three_labels: LabelSet) -> Iterator[Callable[..., LabelStudioModel]]:
    """Loads model "g-1" of a backend; all are closed at the test's end."""
    with ExitStack() as stack:

        def _load(
            backend: MlBackend, labels: LabelSet = three_labels, grid: Grid = GRID, **settings: Any
        ) -> LabelStudioModel:
            model = Quick(
                "g-1", ModelSettings(kind="label_studio", url=backend.url, **settings), labels, grid
            )
            stack.callback(model.close)
            return model

        yield _load
