"""A simulation of two strategies in processes of their own: equal terms, everything kept, nothing done twice."""

import fcntl
import json

import pytest
from rich.console import Console

from mad_backend.errors import MadError
from tests.training.simulation.conftest import Simulated
from training.simulation.board import Plan, run_trials
from training.simulation.records import TRIAL, Trial, TrialRecord
from training.simulation.trial import run_trial


def record_of(simulated: Simulated, strategy: str) -> TrialRecord:
    found = Trial.read(simulated.plan.folder(strategy, 0))
    assert found
    return found.record


def test_all_strategies_are_measured_on_the_same_images_which_none_of_them_learns(
    simulated: Simulated,
) -> None:
    mad, random = (record_of(simulated, name) for name in ("mad", "random"))
    for name in ("W", "T(0)", "T(1)"):
        assert mad.sets[name] == random.sets[name]
        assert mad.sets[name]
    for record in (mad, random):
        tested = {*record.sets["W"], *record.rounds[0].test_set}
        assert not tested.intersection(record.rounds[0].failures)
        assert len(record.rounds[0].failures) == 4
    assert mad.rounds[0].failures != random.rounds[0].failures


def test_only_a_strategy_that_has_m_rated_pays_for_ratings(simulated: Simulated) -> None:
    mad, random = (record_of(simulated, name).rounds[0] for name in ("mad", "random"))
    assert mad.ratings == 3 * mad.selected > 0
    assert random.ratings == random.rating_s == 0
    assert mad.mask_s > 0


def test_what_was_learnt_is_in_the_record_of_the_version_and_what_is_tested_is_not(
    simulated: Simulated,
) -> None:
    record = record_of(simulated, "mad")
    manifest = (simulated.plan.folder("mad", 0) / "checkpoints/scenes@1/data.jsonl").read_text()
    assert all(i.rpartition("/")[2] in manifest for i in record.rounds[0].failures)
    assert not any(i.rpartition("/")[2] in manifest for i in record.sets["W"])


def test_tables_and_page_tell_what_came_of_it(simulated: Simulated) -> None:
    for part in (
        "f(1) - f(0)",
        "Table 1, mad",
        "Table 2",
        "Label maps to mIoU",
        "mad - random",
        "results.html",
    ):
        assert part in simulated.printed
    told = json.loads((simulated.root / "results.json").read_text())
    assert told["strategies"] == ["mad", "random"]
    assert len(told["points"]) == 2 * 3 * 2
    (duel,) = told["duels"]
    assert duel["budget"] > 0
    page = (simulated.root / "results.html").read_text()
    assert page.count("<svg") == 4
    assert (simulated.root / "results.md").read_text().count("| mad |")


def test_the_same_command_again_only_reads(simulated: Simulated) -> None:
    before = (simulated.root / "results.json").read_bytes()
    logs = [simulated.plan.folder(name, 0) / "trial.log" for name in ("mad", "random")]
    times = [log.stat().st_mtime_ns for log in logs]
    assert "Table 1" in simulated.again()
    assert (simulated.root / "results.json").read_bytes() == before
    assert [log.stat().st_mtime_ns for log in logs] == times


def test_a_trial_that_was_stopped_comes_to_the_same(simulated: Simulated) -> None:
    """Its record is gone, as if it had been killed before it was written; round, weights and label maps are there."""
    folder, before = simulated.plan.folder("mad", 0), record_of(simulated, "mad")
    content = (folder / TRIAL).read_bytes()
    (folder / TRIAL).unlink()
    told = []
    found = run_trial(simulated.world("mad"), "mad", 1, lambda what, done, total: told.append(what))
    (folder / TRIAL).write_bytes(content)
    assert TrialRecord(**{**vars(found.record), "compute_s": before.compute_s}) == before
    assert "M" not in told, "it was chosen again"


def test_a_longer_trial_goes_on_from_a_shorter_one_and_holds_it(simulated: Simulated) -> None:
    """In the trial's own folder: what its first round left is used, and the first round is still what it was."""
    before = Trial.read(simulated.plan.folder("random", 0))
    told: list[str] = []
    longer = run_trial(simulated.world("random"), "random", 2, lambda what, done, total: told.append(what))
    assert before
    assert longer.record.rounds[0] == before.record.rounds[0]
    assert longer.record.versions == ["scenes@0", "scenes@1", "scenes@2"]
    assert not set(longer.record.rounds[1].failures).intersection(longer.record.rounds[0].failures)
    assert sum(what == "M" for what in told) == 1, "the first round was chosen again"
    told.clear()
    again = run_trial(simulated.world("random"), "random", 1, lambda what, done, total: told.append(what))
    assert told == []
    assert again.record.rounds == before.record.rounds
    for name in ("W", "T(0)", "T(1)"):
        assert (again.matrices["scenes@1", name] == before.matrices["scenes@1", name]).all()
    before.write(simulated.plan.folder("random", 0))


def test_a_trial_that_fails_is_named_with_its_reason(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("failed")
    plan = Plan(root / "missing.yaml", root, ("mad",), 1, 1)
    with pytest.raises(MadError, match=r"1 of 1 trials failed.*mad, seed 0.*missing.yaml"):
        run_trials(plan, {("mad", 0): ""}, 1, Console(quiet=True))


def test_a_second_simulation_in_the_same_place_is_refused(simulated: Simulated) -> None:
    with (simulated.root / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(MadError, match="another `mad simulate` is at work in"):
            simulated.again()
