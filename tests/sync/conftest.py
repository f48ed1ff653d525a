"""What several tests of pushing and pulling begin with."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mad_backend.store.store import Store
from tests.conftest import RunningLabelStudio
from tests.sync.crosscheck import Crosscheck

MakeCrosscheck = Callable[..., Crosscheck]


@pytest.fixture
def crosscheck(label_studio: RunningLabelStudio, store: Store, tmp_path: Path) -> MakeCrosscheck:
    def make(*authors: int) -> Crosscheck:
        made = Crosscheck(label_studio, store, tmp_path / "masks", authors)
        made.push()
        return made

    return make
