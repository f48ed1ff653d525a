"""The process of the model: swapped, refused, killed and started again while requests go on."""

import os
import signal
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from mad_backend.errors import ModelError
from mad_backend.serving.targets import TargetState
from tests.serving.kept_targets import Kept, kept, until

__all__ = ["kept"]


@pytest.fixture
def waiting(kept: Kept) -> Any:
    """Asks in a thread for images, and returns once the model is at work on them; `go` lets it end."""
    with ThreadPoolExecutor(4) as threads:

        def ask(*stems: str) -> "Future[tuple[str, list[object]]]":
            kept.order("wait")
            asked = threads.submit(kept.ask, *stems)
            until((kept.world.root / "control" / "waiting").exists)
            return asked

        yield ask
        go(kept)


def go(kept: Kept) -> None:
    (kept.world.root / "control" / "wait").unlink(missing_ok=True)


def test_a_new_version_takes_over_while_the_old_one_answers_whom_it_has(kept: Kept, waiting: Any) -> None:
    asked = waiting("0", "1", "2")
    [old] = kept.running()
    kept.promote("scenes@1")
    until(lambda: kept.is_ready("scenes@1"))
    assert old in kept.running()
    go(kept)
    assert asked.result() == ("scenes@0", [1, 1, 1])
    assert kept.ask("0") == ("scenes@1", [2])
    until(lambda: kept.gone == [old])
    [new] = kept.running()
    kept.promote("scenes@0")
    until(lambda: kept.is_ready("scenes@0"))
    assert kept.ask("0") == ("scenes@0", [1])
    until(lambda: kept.gone == [old, new])
    assert len(kept.running()) == 1


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_in_place(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = kept.order("refuse-scenes@1")
    until(lambda: kept.is_ready("scenes@0"))
    kept.promote("scenes@1")
    until(lambda: "told to refuse" in kept.targets.status().error)
    assert kept.is_ready("scenes@0")
    assert kept.ask("0") == ("scenes@0", [1])
    until(lambda: len(kept.gone) == 2)  # it was tried again
    [told] = [r for r in caplog.records if "cannot be served" in r.getMessage()]
    assert told.getMessage().startswith(
        'scenes@1 cannot be served: model "scenes@1": it is told to refuse; scenes@0 is served'
    )
    # Even one that died comes back, for as long as there is no other.
    os.kill(kept.running()[0], signal.SIGKILL)
    until(lambda: not kept.is_ready("scenes@0"))
    assert kept.ask("0") == ("scenes@0", [1])
    assert "told to refuse" in kept.targets.status().error
    refusal.unlink()
    until(lambda: kept.is_ready("scenes@1"))
    assert not kept.targets.status().error
    assert kept.ask("0") == ("scenes@1", [2])


def test_a_version_that_does_not_fit_beside_the_old_one_takes_its_place(kept: Kept, waiting: Any) -> None:
    asked = waiting("0")
    kept.order("single")
    kept.promote("scenes@1")
    until(lambda: kept.targets.status().version == "scenes@1")
    assert kept.targets.status().state is TargetState.LOADING
    go(kept)
    assert asked.result() == ("scenes@0", [1])
    assert kept.ask("0") == ("scenes@1", [2])
    assert len(kept.running()) == 1
    # Nor does the first one fit beside the second, and now it does not fit in its place either.
    kept.order("full", "scenes@0")
    kept.promote("scenes@0")
    until(lambda: "scenes@0 cannot be served: MemoryError" in kept.targets.status().error)
    until(lambda: kept.is_ready("scenes@1"))
    loaded = len(kept.gone)
    until(lambda: len(kept.gone) > loaded)
    assert kept.is_ready("scenes@1")
    assert kept.ask("0") == ("scenes@1", [2])


def test_without_an_old_one_the_reason_is_told_until_the_checkpoint_is_mended(kept: Kept) -> None:
    kept.order("refuse-scenes@0")
    until(lambda: kept.targets.status().state is TargetState.FAILED)
    with kept.targets.hold() as target:
        assert target.key.startswith("scenes@0-")
    with pytest.raises(ModelError, match=r"scenes@0 cannot be served: .* told to refuse"):
        kept.ask("0")
    (kept.world.root / "control" / "refuse-scenes@0").unlink()
    (kept.world.root / "f0" / "mended").touch()
    until(lambda: kept.is_ready("scenes@0"))
    assert kept.ask("0") == ("scenes@0", [1])


def test_an_image_that_kills_the_process_twice_is_given_up_and_the_others_are_answered(kept: Kept) -> None:
    kept.order("kill-1", "2")
    version, answers = kept.ask("0", "1", "2")
    assert version == "scenes@0"
    assert [answers[0], answers[2]] == [1, 1]
    assert isinstance(answers[1], ModelError)
    assert 'ended twice while it had image "pool/1"' in str(answers[1])
    assert len(kept.gone) == 2
    # The third time it is said to fail, and still comes back.
    os.kill(kept.running()[0], signal.SIGKILL)
    until(lambda: kept.targets.status().state is TargetState.FAILED)
    assert "does not stay up; it ended with status -9" in kept.targets.status().error
    with pytest.raises(ModelError, match="does not stay up"):
        kept.ask("0")
    until(lambda: kept.is_ready("scenes@0"))
