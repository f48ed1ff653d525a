"""What several tests of pushing and pulling begin with."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mad_backend.store.store import Store
from tests.conftest import RunningLabelStudio
from tests.sync.crosscheck import Crosscheck
from tests.sync.foreign_project import Theirs

MakeCrosscheck = Callable[..., Crosscheck]
MakeTheirs = Callable[[str], Theirs]


@pytest.fixture
def crosscheck(label_studio: RunningLabelStudio, store: Store, tmp_path: Path) -> MakeCrosscheck:
    def make(*authors: int) -> Crosscheck:
        made = Crosscheck(label_studio, store, tmp_path / "masks", authors)
        made.push()
        return made

    return make


@pytest.fixture
def theirs(label_studio: RunningLabelStudio) -> Iterator[MakeTheirs]:
    made: list[Theirs] = []

    def make(config: str) -> Theirs:
        made.append(Theirs(label_studio.admin, config))
        return made[-1]

    yield make
    for project in made:
        label_studio.admin.delete_project(project.id)
