"""How one request is worked off: what reaches the model, what is kept when it ends early, what stays in memory."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mad_backend.core.labels import LabelMap
from mad_backend.core.records import Frame
from mad_backend.errors import AbandonedError, BusyError, ImageError, MadError, ModelError
from mad_backend.serving.target_service import TargetPrediction, TargetService
from mad_backend.serving.targets import (
    HeldTarget,
    IsAbandoned,
    TargetState,
    TargetStatus,
    VersionGoneError,
    never,
)
from mad_backend.settings import Settings
from tests.served_world import CONFIG, asking

OpenService = Callable[..., TargetService]


@dataclass
class HeldHere:
    """Says class 1 in the left half of whatever it sees; `seen` are the images of each call."""

    version: str = "here@0"
    key: str = "here-0"
    seen: list[list[str]] = field(default_factory=list)
    sees: Callable[[Sequence[Frame]], None] = lambda frames: None

    def predict(
        self, frames: Sequence[Frame], is_abandoned: IsAbandoned = never
    ) -> list[LabelMap | MadError]:
        if is_abandoned():
            raise AbandonedError("nobody waits")
        self.seen.append([Path(frame.image_id).stem for frame in frames])
        self.sees(frames)
        return [left_half(frame) for frame in frames]


@dataclass
class TargetsHere:
    """Versions of a target in this process, the first of which is served."""

    versions: list[HeldHere] = field(default_factory=lambda: [HeldHere()])

    def served_version(self) -> str:
        return self.versions[0].version

    def status(self) -> TargetStatus:
        return TargetStatus(self.served_version(), TargetState.READY)

    @contextmanager
    def hold(self) -> Iterator[HeldTarget]:
        yield self.versions[0]

    def close(self) -> None:
        """Nothing is loaded."""


def left_half(frame: Frame) -> LabelMap:
    label_map = np.zeros(frame.rgb.shape[:2], np.uint8)
    label_map[:, : label_map.shape[1] // 2] = 1
    return label_map


@pytest.fixture
def targets() -> TargetsHere:
    return TargetsHere()


@pytest.fixture
def settings(world: Any) -> Settings:
    """Batches of four; images of a folder of this machine are allowed."""
    (world.root / "others").mkdir()
    allowed = world.settings.serve.images.model_copy(update={"roots": (world.root / "others",)})
    serve = world.settings.serve.model_copy(update={"images": allowed})
    return world.with_target(batch_size=4).model_copy(update={"serve": serve})


@pytest.fixture
def ask(
    world: Any, open_service: OpenService, settings: Settings, targets: TargetsHere
) -> Callable[..., list[TargetPrediction]]:
    service = open_service(settings, targets=targets)

    def _ask(tasks: Sequence[Any], is_abandoned: IsAbandoned = never, **changed: Any) -> Any:
        return service.predict(replace(asking(tasks), **changed), is_abandoned)

    return _ask


def other(world: Any, name: str, seed: int, size: tuple[int, int] = (40, 60)) -> dict[str, Any]:
    """A task with an image of its own outside of the pool."""
    path = world.root / "others" / f"{name}.png"
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path)
    return {"id": seed, "data": {"image": str(path)}}


def answered(answers: Sequence[TargetPrediction]) -> list[bool]:
    return [bool(answer.regions) for answer in answers]


def test_an_image_that_comes_twice_is_predicted_once_wherever_it_stands(
    world: Any, ask: Any, targets: TargetsHere
) -> None:
    tasks = [other(world, f"{n}", n) for n in range(10)]
    twins = [other(world, f"twin{n}", n) for n in range(10)]  # other files of the same content
    answers = ask([*tasks, *twins, *tasks, tasks[3]])
    assert answered(answers) == [True] * 31
    assert sorted(chain.from_iterable(targets.versions[0].seen)) == sorted(f"{n}" for n in range(10))
    ask(twins)
    assert len(targets.versions[0].seen) == 3


def test_pool_images_of_equal_content_keep_their_own_maps(world: Any, ask: Any, targets: TargetsHere) -> None:
    ask([world.task("pool/0"), world.task("pool/1"), world.task("pool/0")])  # a model may know images by name
    assert targets.versions[0].seen == [["0", "1"]]


def test_answers_are_in_the_order_of_the_tasks(world: Any, ask: Any) -> None:
    tasks = [other(world, f"{n}", n, (20 + n, 30)) for n in range(12)]
    order = np.random.default_rng(7).permutation(36) % 12
    answers = ask([tasks[n] for n in order])
    assert [a.regions[0]["original_height"] for a in answers] == [20 + n for n in order]


def test_what_an_abandoned_request_had_predicted_is_not_predicted_again(
    world: Any, ask: Any, targets: TargetsHere
) -> None:
    tasks = [other(world, f"{n}", n) for n in range(20)]
    seen = targets.versions[0].seen
    with pytest.raises(AbandonedError):
        ask(tasks, lambda: len(seen) == 3)
    assert [len(batch) for batch in seen] == [4, 4, 4]
    assert answered(ask(tasks)) == [True] * 20
    assert [len(batch) for batch in seen] == [4, 4, 4, 4, 4]
    with pytest.raises(AbandonedError):  # also where nothing is left for the model to do
        ask(tasks, lambda: True)


def test_a_busy_model_ends_the_request_and_keeps_what_was_done(
    world: Any, ask: Any, targets: TargetsHere
) -> None:
    tasks = [other(world, f"{n}", n) for n in range(8)]
    held = targets.versions[0]

    def refuse_second(_: Sequence[Frame]) -> None:
        if len(held.seen) == 2:
            raise BusyError("too much is waiting", 5)

    held.sees = refuse_second
    with pytest.raises(BusyError):
        ask(tasks)
    assert answered(ask(tasks)) == [True] * 8
    assert held.seen[2] == held.seen[1]


def test_a_request_whose_version_goes_is_begun_anew_with_the_next_one(
    world: Any, ask: Any, targets: TargetsHere, caplog: pytest.LogCaptureFixture
) -> None:
    def die(_: Sequence[Frame]) -> None:
        if len(targets.versions[0].seen) == 2:
            targets.versions.pop(0)
            raise VersionGoneError("here@0 is gone")

    targets.versions = [HeldHere(sees=die), HeldHere("here@1", "here-1")]
    answers = ask([other(world, f"{n}", n) for n in range(12)])
    assert {a.model_version for a in answers} == {"here@1"}
    assert sum(map(len, targets.versions[0].seen)) == 12
    assert "begun anew" in caplog.text


def test_a_version_that_is_never_to_be_had_is_an_error(world: Any, ask: Any, targets: TargetsHere) -> None:
    def gone(_: Sequence[Frame]) -> None:
        raise VersionGoneError("gone again")

    targets.versions[0].sees = gone
    with pytest.raises(ModelError, match="gone again"):
        ask([other(world, "0", 0)])
    assert len(targets.versions[0].seen) == 3


def test_one_image_s_faults_cost_only_itself(
    world: Any, ask: Any, targets: TargetsHere, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = [other(world, f"{n}", n) for n in range(6)]
    (world.root / "others" / "1.png").write_bytes(b"no image")
    (world.root / "others" / "2.png").unlink()
    tasks[3]["data"]["image"] = "/etc/passwd"
    tasks[4]["data"]["image"] = "ftp://example.com/a.png"
    with caplog.at_level(logging.INFO):
        assert answered(ask(tasks)) == [True, False, False, False, False, True]
    assert [r.levelname for r in caplog.records] == ["WARNING"] * 4 + ["INFO"]
    assert "here@0 answered 2 of 6 tasks" in caplog.text


def test_images_of_too_many_pixels_are_refused_before_they_are_decoded(
    world: Any, open_service: OpenService, settings: Settings, targets: TargetsHere, caplog: Any
) -> None:
    images = settings.serve.images.model_copy(update={"max_pixels": 2000})
    serve = settings.serve.model_copy(update={"images": images})
    service = open_service(settings.model_copy(update={"serve": serve}), targets=targets)
    tasks = [other(world, "a", 1, (40, 60)), other(world, "b", 2, (40, 50))]
    assert answered(service.predict(asking(tasks))) == [False, True]
    assert "60 x 40 pixels; serve.images.max_pixels is 2,000" in caplog.text


def test_memory_holds_a_few_batches_of_a_long_request(world: Any, ask: Any, targets: TargetsHere) -> None:
    tasks = [other(world, f"{n}", n) for n in range(60)]
    alive, most, lock = set[int](), 0, threading.Lock()

    def count(frames: Sequence[Frame]) -> None:
        nonlocal most
        import gc

        with lock:
            alive.clear()
            # `isinstance` would wake objects of other packages that stand in for deprecated ones.
            alive.update(id(f) for f in gc.get_objects() if type(f) is Frame)
            most = max(most, len(alive))

    targets.versions[0].sees = count
    assert answered(ask(tasks)) == [True] * 60
    assert most <= 4 * 4


def test_a_second_click_does_not_run_the_model(world: Any, ask: Any, targets: TargetsHere) -> None:
    task = other(world, "0", 0)

    def click(x: float) -> Any:
        mark = {"type": "keypointlabels", "to_name": "image", "value": {"x": x, "y": 50}, "is_positive": True}
        (answer,) = ask([task], context={"result": [mark]})
        assert answer.model_version == "here@0"
        return [r["value"]["bitmasklabels"] for r in answer.regions]

    assert click(10) == [["house"]]
    assert click(12) == [["house"]]
    assert click(90) == []
    assert len(targets.versions[0].seen) == 1
    (whole,) = ask([task], context={})
    assert whole.regions
    assert len(targets.versions[0].seen) == 1


def test_contexts_and_configurations_that_cannot_be_read_propose_nothing(
    world: Any, ask: Any, targets: TargetsHere, caplog: pytest.LogCaptureFixture
) -> None:
    task = other(world, "0", 0)
    for changed in (
        {"context": 7},
        {"context": {"result": {}}},
        {"label_config": "<View>"},
        {"label_config": "x" * (2**20 + 1)},
        {"label_config": CONFIG.replace("Bitmask", "Rectangle")},
    ):
        caplog.clear()
        assert ask([task, None], **changed) == [TargetPrediction("here@0")] * 2
        assert "no predictions for 2 tasks" in caplog.text
    assert not targets.versions[0].seen


def test_a_service_can_be_warmed_up_before_anybody_asks(open_service: OpenService) -> None:
    open_service().warm_up()


def test_many_requests_at_once_are_each_whole(world: Any, ask: Any, targets: TargetsHere) -> None:
    tasks = [other(world, f"{n}", n, (20 + n, 30)) for n in range(10)]

    def one(seed: int) -> bool:
        order = np.random.default_rng(seed).permutation(10)[: 1 + seed % 10]
        answers = ask([tasks[n] for n in order])
        return [a.regions[0]["original_height"] for a in answers] == [20 + n for n in order]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(one, range(40)))


def test_faults_nobody_foresaw_cost_only_their_image(
    world: Any, ask: Any, targets: TargetsHere, caplog: pytest.LogCaptureFixture
) -> None:
    held = targets.versions[0]
    tasks = [other(world, f"{n}", n) for n in range(3)]
    held.predict = (
        lambda frames, is_abandoned=never: [  # type: ignore[method-assign]
            left_half(frames[0]),
            ImageError("not that one"),
            np.full(frames[2].rgb.shape[:2], 200, np.uint8),  # a class that the label set does not have
        ]
    )
    assert answered(ask(tasks)) == [True, False, False]
    assert "not that one" in caplog.text
    assert "class ids [200]" in caplog.text
