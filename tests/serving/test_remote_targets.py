"""What every `Targets` keeps to, wherever the model runs, and what only those with a process beside them can meet."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from mad_backend.errors import AbandonedError, ModelError, StoreError
from mad_backend.serving.generations import Announcer, Generation
from mad_backend.serving.local_targets import LocalTargets
from mad_backend.serving.remote_targets import RemoteTargets
from mad_backend.serving.targets import Targets, TargetState, VersionGoneError
from mad_backend.settings import Settings
from mad_backend.store.store import Store
from mad_backend.targets import target_key
from tests.served_world import NOW, World
from tests.serving.kept_targets import ask, frame, keeping, until


@dataclass(frozen=True)
class Kind:
    """Opens targets of a world; `promote` returns once a version is served."""

    open: Callable[..., Targets]
    world: World

    def promote(self, targets: Targets, version: str) -> None:
        self.world.store.versions.promote(version, NOW, "test")
        until(lambda: targets.status().version == version)


@pytest.fixture(params=["local", "remote"])
def kind(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Iterator[Kind]:
    with ExitStack() as opened:

        def local(settings: Settings = world.settings) -> Targets:
            return opened.enter_context(closing(LocalTargets(world.store, settings, world.labels)))

        def remote(settings: Settings = world.settings) -> Targets:
            return opened.enter_context(keeping(world, tmp_path / "k", settings)).targets

        yield Kind(local if request.param == "local" else remote, world)


def test_a_held_version_stays_while_others_get_the_next_one(kind: Kind) -> None:
    world, targets = kind.world, kind.open()
    assert targets.served_version() == "scenes@0"
    ask(world, targets, "0")
    with targets.hold() as held:
        assert held.key == target_key(
            world.store.versions.get("scenes@0"), world.settings, world.labels, world.grid
        )
        assert ask(world, targets, "0", "1") == ("scenes@0", [1, 1])
        kind.promote(targets, "scenes@1")
        assert ask(world, targets, "0") == ("scenes@1", [2])
        assert held.version == "scenes@0"
        assert [int(answer[0, 0]) for answer in held.predict([frame(world, "2")])] == [1]  # type: ignore[index]
    assert targets.status().state is TargetState.READY
    kind.promote(targets, "scenes@0")
    assert ask(world, targets, "0") == ("scenes@0", [1])


def test_neither_an_image_without_an_answer_nor_a_caller_who_left_costs_others_theirs(kind: Kind) -> None:
    targets = kind.open()
    version, answers = ask(kind.world, targets, "0", "nowhere", "1")
    assert version == "scenes@0"
    assert [answers[0], answers[2]] == [1, 1]
    assert isinstance(answers[1], ModelError)
    assert "pool/nowhere" in str(answers[1])
    with targets.hold() as target, pytest.raises(AbandonedError):
        target.predict([frame(kind.world, "0")], lambda: True)
    assert ask(kind.world, targets, "0") == ("scenes@0", [1])


def test_a_missing_checkpoint_is_named(kind: Kind) -> None:
    targets = kind.open(kind.world.with_target(path=kind.world.root / "nowhere"))
    with pytest.raises(ModelError, match="nowhere"), targets.hold() as target:
        target.predict([frame(kind.world, "0")])


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(f"sqlite:///{tmp_path}/empty.sqlite3")) as store:
        yield store


@pytest.mark.parametrize("place", ["local", "remote"])
def test_before_the_first_promotion_there_is_nothing_to_hold(
    place: str, world: World, empty: Store, tmp_path: Path
) -> None:
    local = LocalTargets(empty, world.settings, world.labels)
    targets: Targets = local if place == "local" else RemoteTargets(empty, tmp_path)
    assert targets.served_version() is None
    assert targets.status().state is TargetState.UNPROMOTED
    with pytest.raises(StoreError, match="mad new-round"), targets.hold():
        pass


def test_the_promoted_version_is_named_before_its_process_is_announced(world: World, tmp_path: Path) -> None:
    status = RemoteTargets(world.store, tmp_path).status()
    assert (status.version, status.state) == ("scenes@0", TargetState.LOADING)


def test_what_is_announced_is_told_while_the_database_is_away(world: World, tmp_path: Path) -> None:
    Announcer(tmp_path).announce(Generation(3, "scenes@0", "k", None, TargetState.LOADING, "why"))
    world.store.close()
    (world.root / "mad.sqlite3").unlink()
    status = RemoteTargets(world.store, tmp_path).status()
    assert (status.version, status.error, status.generation) == ("scenes@0", "why", 3)


def test_a_version_that_is_loading_can_be_held_and_is_waited_for(world: World, tmp_path: Path) -> None:
    announcer = Announcer(tmp_path)
    announcer.announce(Generation(1, "scenes@0", "k", None, TargetState.LOADING))
    targets = RemoteTargets(world.store, tmp_path, patience_s=0.2)
    with targets.hold() as target:
        assert (target.version, target.key) == ("scenes@0", "k")
        with pytest.raises(ModelError, match="scenes@0 was not loaded in 0 s"):
            target.predict([frame(world, "0")])
        with pytest.raises(AbandonedError):
            target.predict([frame(world, "0")], lambda: True)
        announcer.announce(Generation(1, "scenes@0", "k", None, TargetState.FAILED, "no such file"))
        with pytest.raises(ModelError, match="no such file"):
            target.predict([frame(world, "0")])
        announcer.announce(Generation(2, "scenes@1", "l", None, TargetState.LOADING))
        with pytest.raises(VersionGoneError, match="scenes@0"):
            target.predict([frame(world, "0")])


def test_a_hold_waits_for_the_key_of_the_stored_label_maps(world: World, tmp_path: Path) -> None:
    announcer = Announcer(tmp_path)
    announcer.announce(Generation(1, "scenes@0", "", None, TargetState.LOADING))
    targets = RemoteTargets(world.store, tmp_path)

    def key() -> str:
        with targets.hold() as target:
            return target.key

    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(key)
        announcer.announce(Generation(1, "scenes@0", "k", None, TargetState.LOADING))
        assert found.result(10) == "k"


def test_a_hold_without_a_key_fails_with_the_reason(world: World, tmp_path: Path) -> None:
    Announcer(tmp_path).announce(Generation(1, "scenes@0", "", None, TargetState.FAILED, "no such file"))
    with pytest.raises(ModelError, match="no such file"), RemoteTargets(world.store, tmp_path).hold():
        pass
