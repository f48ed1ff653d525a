"""A small project as the web process finds it, and a model that a test holds back."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.served_world import open_service, service, world
from tests.serving.gated_model import GatedModel

__all__ = ["open_service", "service", "world"]


@pytest.fixture
def model() -> GatedModel:
    return GatedModel()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(20) as pool:
        yield pool
