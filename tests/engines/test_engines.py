"""What every engine must do; the one of this process is the measure."""

import os
import time
from collections.abc import Callable
from typing import TypeAlias

import psutil
import pytest

from mad_backend.engines.base import Engine, ModelRecipe
from mad_backend.engines.factory import open_engine
from mad_backend.errors import ModelError
from mad_backend.settings import RaySettings, ScanSettings
from tests.engines.conftest import Pool, stable
from tests.engines.stand_ins import read

Open: TypeAlias = Callable[..., Engine]


@pytest.fixture(params=["local", "devices", "ray"])
def opened(request: pytest.FixtureRequest) -> Open:
    """Opens an engine of one kind with the models of some recipes."""
    settings = ScanSettings(devices=("cpu", "cpu") if request.param == "devices" else ())
    if request.param == "ray":
        cluster = request.getfixturevalue("cluster")
        settings = ScanSettings(engine="ray", ray=RaySettings(address=cluster.address, actors=2))

    def open_(*recipes: ModelRecipe) -> Engine:
        return open_engine(settings, recipes, read)

    return open_


class TestEveryEngine:
    def test_gives_the_same_bytes_as_one_process_in_the_order_of_the_tasks(
        self, opened: Open, pool: Pool
    ) -> None:
        recipes = (pool.recipe("folder"), pool.recipe("torchscript"))
        tasks = pool.tasks(2)
        with open_engine(ScanSettings(), recipes, read) as measure:
            expected = stable(measure.run(tasks))
        with opened(*recipes) as engine:
            assert list(engine.run([])) == []
            first, again = stable(engine.run(tasks)), stable(engine.run(tasks))
        assert [result.number for result in first] == list(range(6))
        assert first == expected
        assert again == expected
        assert "d/005.png" in expected[1].unreadable["d/005"]
        assert expected[1].unanswered == (["d/006"], [])
        assert [[m.image_id for m in maps] for maps in expected[1].maps] == [
            ["d/004", "d/007"],
            ["d/004", "d/006", "d/007"],
        ]

    def test_hands_on_what_a_model_raises_after_the_results_before_it(self, opened: Open, pool: Pool) -> None:
        with opened(pool.recipe("Refusing")) as engine:
            results = engine.run(pool.tasks(1))
            assert [next(results).number, next(results).number] == [0, 1]
            with pytest.raises(ModelError, match=r'^model "Refusing": no answer to d/009$'):
                next(results)

    def test_hands_on_why_a_model_cannot_be_loaded(self, opened: Open, pool: Pool) -> None:
        recipe = pool.recipe("folder")
        (pool.root / "maps").rename(pool.root / "elsewhere")
        with (
            pytest.raises(ModelError, match=r'^model "folder": there is no .*maps;'),
            opened(recipe) as engine,
        ):
            next(engine.run(pool.tasks(1)))

    def test_closed_in_the_middle_leaves_no_process_behind(self, opened: Open, pool: Pool) -> None:
        with opened(pool.recipe("Traced")) as engine:
            next(engine.run(pool.tasks(1, chunk=1)))
            workers = [psutil.Process(pid) for pid in {pid for pid, _ in pool.trace()} - {os.getpid()}]
        assert psutil.wait_procs(workers, timeout=5)[1] == []
        before = len(pool.trace())
        time.sleep(0.5)
        assert len(pool.trace()) == before
