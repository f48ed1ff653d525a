"""What holds of a held target wherever its model runs: in this process, or behind a socket."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mad_backend.core.records import Frame
from mad_backend.errors import AbandonedError, ModelError
from mad_backend.serving.local_targets import LocalTargets
from mad_backend.serving.model_client import ModelConnection
from mad_backend.serving.targets import HeldTarget
from mad_backend.targets import load_target
from tests.served_world import half_map
from tests.serving.gated_model import serving


@pytest.fixture(params=["local", "behind a socket"])
def held(request: Any, world: Any) -> Iterator[HeldTarget | ModelConnection]:
    """scenes@0 of `world`, which has label maps in a folder."""
    with ExitStack() as opened:
        if request.param == "local":
            targets = LocalTargets(world.store, world.settings, world.labels)
            opened.callback(targets.close)
            yield opened.enter_context(targets.hold())
        else:
            promoted = world.store.versions.promoted()
            model = load_target(promoted, world.settings, world.labels, world.grid)
            served = opened.enter_context(serving(model, batch_size=2))
            yield opened.enter_context(ModelConnection(served.path))


def frame(world: Any, image_id: str) -> Frame:
    return Frame(image_id, world.grid.image(np.zeros((40, 60, 3), np.uint8)), (40, 60))


def test_answers_are_label_maps_on_the_grid_in_the_order_of_the_frames(world: Any, held: HeldTarget) -> None:
    Image.fromarray(half_map(5)).save(world.root / "f0" / "pool" / "3.png")
    ids = [3, 0, 3, 3, 1]
    answers = held.predict([frame(world, f"pool/{n}") for n in ids])
    for n, answer in zip(ids, answers, strict=True):
        assert isinstance(answer, np.ndarray)
        assert answer.dtype == np.uint8
        np.testing.assert_array_equal(answer, world.grid.label_map(half_map(5 if n == 3 else 1)))
    assert held.predict([]) == []


def test_a_frame_without_an_answer_and_one_that_fails_cost_no_other_theirs(
    world: Any, held: HeldTarget, caplog: pytest.LogCaptureFixture
) -> None:
    (world.root / "f0" / "pool" / "1.png").unlink()
    (world.root / "f0" / "pool" / "2.png").write_bytes(b"no image")
    Image.fromarray(half_map(1)[:7]).save(world.root / "f0" / "pool" / "3.png")
    with caplog.at_level(logging.ERROR):
        answers = held.predict([frame(world, f"pool/{n}") for n in range(5)])
    for n in (0, 4):
        np.testing.assert_array_equal(answers[n], world.grid.label_map(half_map(1)))
    reasons = answers[1:4]
    assert all(type(reason) is ModelError for reason in reasons)
    assert str(reasons[0]) == 'model "scenes@0" has no answer for image "pool/1"'
    assert 'model "scenes@0"' in str(reasons[1])
    assert "is 60 x 7 pixels, its image 60 x 40" in str(reasons[2])


def test_nothing_is_predicted_for_whom_nobody_waits(world: Any, held: HeldTarget) -> None:
    with pytest.raises(AbandonedError):
        held.predict([frame(world, "pool/0")], lambda: True)
