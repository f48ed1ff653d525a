"""One contract for SQLite and Postgres: rounds, leases, what is recorded, repeats."""

from datetime import timedelta

import pytest
from sqlalchemy import create_engine

from mad_backend.core.records import (
    Candidate,
    Failure,
    HumanMask,
    ProjectRole,
    Provenance,
    Rating,
    RemoteProject,
    Role,
    Veto,
)
from mad_backend.core.rounds import RoundState
from mad_backend.errors import StoreError, TransitionError
from mad_backend.store.store import Store
from mad_backend.store.versions import EvaluationRow
from tests.store.conftest import NOON

CREATED, PREDICTING = RoundState.CREATED, RoundState.PREDICTING


def candidate(image_id: str, *ranks: int) -> Candidate:
    cells = (Provenance("g", 1, Role.TARGET, rank, 0.1 + 0.2 / rank) for rank in ranks)
    return Candidate(image_id, tuple(cells))


def rating(image_id: str, rater: str, score: int | None) -> Rating:
    return Rating(image_id, rater, score, 3, NOON, 1.5)


class TestStore:
    def test_a_round_is_created_once(self, opened: Store) -> None:
        assert not opened.rounds.create(1, 99, NOON)
        assert opened.rounds.get(1).seed == 7
        assert opened.rounds.next_number() == 2
        assert [r.number for r in opened.rounds.all()] == [1]

    def test_a_round_that_does_not_exist_is_named(self, opened: Store) -> None:
        with pytest.raises(StoreError, match="there is no round 9"):
            opened.rounds.get(9)

    def test_a_lease_keeps_others_out_until_it_ends(self, opened: Store) -> None:
        rounds = opened.rounds
        assert rounds.claim(1, "a", NOON, 60)
        assert rounds.claim(1, "a", NOON, 60)
        assert not rounds.claim(1, "b", NOON + timedelta(seconds=59), 60)
        assert rounds.claim(1, "b", NOON + timedelta(seconds=61), 60)

    def test_a_renewed_lease_holds_longer_and_a_lost_one_cannot_be_renewed(self, opened: Store) -> None:
        rounds = opened.rounds
        rounds.claim(1, "a", NOON, 60)
        assert rounds.renew(1, "a", NOON + timedelta(seconds=50), 60)
        assert not rounds.claim(1, "b", NOON + timedelta(seconds=100), 60)
        assert rounds.claim(1, "b", NOON + timedelta(seconds=111), 60)
        assert not rounds.renew(1, "a", NOON + timedelta(seconds=112), 60)

    def test_a_released_round_is_free_and_only_its_owner_releases_it(self, opened: Store) -> None:
        opened.rounds.claim(1, "a", NOON, 60)
        opened.rounds.release(1, "b")
        assert not opened.rounds.claim(1, "b", NOON, 60)
        opened.rounds.release(1, "a")
        assert opened.rounds.claim(1, "b", NOON, 60)

    def test_leases_are_compared_across_time_zones(self, opened: Store) -> None:
        from datetime import timezone

        opened.rounds.claim(1, "a", NOON, 60)
        east = timezone(timedelta(hours=9))
        assert not opened.rounds.claim(1, "b", (NOON + timedelta(seconds=30)).astimezone(east), 60)
        assert opened.rounds.claim(1, "b", (NOON + timedelta(seconds=90)).astimezone(east), 60)

    def test_advancing_from_a_state_the_round_has_left_changes_nothing(self, opened: Store) -> None:
        assert opened.rounds.advance(1, CREATED, PREDICTING, NOON)
        assert not opened.rounds.advance(1, CREATED, PREDICTING, NOON)
        assert opened.rounds.get(1).state is PREDICTING

    def test_an_impossible_move_is_refused(self, opened: Store) -> None:
        with pytest.raises(TransitionError):
            opened.rounds.advance(1, CREATED, RoundState.FINISHED, NOON)

    def test_a_failed_round_keeps_where_it_was_and_why_and_goes_back_there_once(self, opened: Store) -> None:
        rounds = opened.rounds
        rounds.report(1, "working", 3, 9)
        rounds.advance(1, CREATED, RoundState.FAILED, NOON, error="no disk")
        failed = rounds.get(1)
        assert (failed.state, failed.came_from, failed.error) == (RoundState.FAILED, CREATED, "no disk")
        assert (failed.note, failed.done, failed.total) == ("", 0, 0)
        assert rounds.advance(1, RoundState.FAILED, CREATED, NOON)
        assert not rounds.advance(1, RoundState.FAILED, CREATED, NOON)
        assert rounds.get(1).error is None

    def test_m_comes_back_with_its_provenance_and_is_replaced_by_a_repeat(self, opened: Store) -> None:
        opened.choices.record_selection(1, [candidate("z", 3)])
        opened.choices.record_selection(1, [candidate("b", 2), candidate("a", 1, 3)])
        assert opened.choices.selection(1) == [candidate("a", 1, 3), candidate("b", 2)]

    def test_an_empty_m_is_recorded(self, opened: Store) -> None:
        opened.choices.record_selection(1, [])
        assert opened.choices.selection(1) == []

    def test_a_cut_is_recorded_once_and_never_changed(self, opened: Store) -> None:
        choices = opened.choices
        choices.record_cut(1, [Failure("b", 1 / 3), Failure("a", 2.0)], ["z", "y"], {"v": "ann"})
        choices.record_cut(1, [Failure("c", 1.0)], ["x"], {"w": "bob"})
        assert choices.failures(1) == [Failure("b", 1 / 3), Failure("a", 2.0)]
        assert choices.test_set(1) == ["z", "y"]
        assert choices.vetoed() == {"v"}
        assert choices.spent() == {"a", "b", "v", "y", "z"}

    def test_a_lifted_veto_lets_the_image_back(self, opened: Store) -> None:
        opened.choices.record_cut(1, [Failure("a", 1.0)], [], {"v": "ann"})
        assert opened.choices.lift_veto("v")
        assert not opened.choices.lift_veto("nobody's")
        assert opened.choices.spent() == {"a"}
        assert opened.choices.vetoes() == [Veto("v", 1, "ann", is_lifted=True)]

    def test_a_veto_after_a_lifted_one_counts_again(self, opened: Store) -> None:
        opened.choices.record_cut(1, [Failure("a", 1.0)], [], {"u": "ann", "v": "ann"})
        opened.choices.lift_veto("v")
        opened.rounds.create(2, 7, NOON)
        opened.choices.record_cut(2, [Failure("b", 1.0)], [], {"v": "bob"})
        assert opened.choices.vetoed() == {"u", "v"}
        assert opened.choices.vetoes() == [
            Veto("u", 1, "ann", is_lifted=False),
            Veto("v", 2, "bob", is_lifted=False),
        ]

    def test_unreadable_images_are_named_with_the_latest_reason(self, opened: Store) -> None:
        opened.choices.record_unreadable({"a": "truncated"})
        opened.choices.record_unreadable({"a": "gone", "b": "empty"})
        opened.choices.record_unreadable({})
        assert opened.choices.unreadable() == {"a": "gone", "b": "empty"}

    def test_an_outcome_is_kept_with_what_the_stop_rule_said(self, opened: Store) -> None:
        opened.rounds.conclude(1, "promoted", "few failures are left")
        found = opened.rounds.get(1)
        assert (found.outcome, found.stop) == ("promoted", "few failures are left")
        opened.rounds.conclude(1, "promoted")
        assert opened.rounds.get(1).stop is None

    def test_ratings_are_replaced_as_a_whole_and_keep_vetoes_and_times(self, opened: Store) -> None:
        opened.remote.record_ratings(1, [rating("a", "ann", 3), rating("b", "ann", 1)])
        latest = [rating("a", "ann", 4), rating("a", "bob", None)]
        opened.remote.record_ratings(1, latest)
        assert opened.remote.ratings(1) == latest

    def test_projects_tasks_and_masks_may_be_recorded_twice(self, opened: Store) -> None:
        remote = opened.remote
        for signature in ("old", "new"):
            remote.record_project(1, RemoteProject(ProjectRole.RATING, 5, "MAD", signature))
            remote.record_mask(1, HumanMask("a", "a.png", signature, "ann", 2, ("odd",)))
            remote.record_tasks(1, ProjectRole.RATING, {"a": 11, "b": 12})
        remote.record_tasks(1, ProjectRole.RATING, {"a": 13})
        assert remote.project(1, ProjectRole.RATING) == RemoteProject(ProjectRole.RATING, 5, "MAD", "new")
        assert remote.project(1, ProjectRole.SEGMENTATION) is None
        assert remote.masks(1) == {"a": HumanMask("a", "a.png", "new", "ann", 2, ("odd",))}
        assert remote.tasks(1, ProjectRole.RATING) == {"a": 13}

    def test_item_keys_survive_a_restart_and_lead_back_to_the_image(self, opened: Store, url: str) -> None:
        key = opened.remote.item_key(1, ProjectRole.RATING, "a")
        opened.remote.record_tasks(1, ProjectRole.RATING, {"a": 1})
        again = Store(url)
        assert again.remote.item_key(1, ProjectRole.RATING, "a") == key
        assert again.remote.item_key(1, ProjectRole.SEGMENTATION, "a") != key
        assert again.remote.image_of_item(key) == "a"
        assert again.remote.image_of_item("other") is None
        again.close()

    def test_several_wishes_to_pull_are_taken_as_one(self, opened: Store) -> None:
        opened.remote.want_pull()
        opened.remote.want_pull()
        assert opened.remote.take_pull_wish()
        assert not opened.remote.take_pull_wish()

    def test_the_newest_promotion_is_served_and_may_go_back(self, opened: Store) -> None:
        versions = opened.versions
        assert versions.promoted() is None
        versions.record("f@0", 0, None, NOON)
        versions.record("f@1", 1, "one.safetensors", NOON)
        versions.record("f@1", 1, "other.safetensors", NOON)
        for version, minute in (("f@0", 1), ("f@1", 2), ("f@1", 3), ("f@0", 4)):
            versions.promote(version, NOON + timedelta(minutes=minute), "because")
        served = versions.promoted()
        assert served
        assert (served.version, served.promoted_at) == ("f@0", NOON + timedelta(minutes=4))
        one = versions.get("f@1")
        assert (one.path, one.promoted_at) == ("one.safetensors", NOON + timedelta(minutes=2))

    def test_what_was_served_before_is_of_an_earlier_round_and_skips_what_never_was(
        self, opened: Store
    ) -> None:
        versions = opened.versions
        assert versions.served_before() is None
        for number in range(4):
            versions.record(f"net@{number}", number, None, NOON)
            if number != 2:
                versions.promote(f"net@{number}", NOON, "the gate")
        for wanted in ("net@1", "net@0"):
            before = versions.served_before()
            assert before is not None
            assert before.version == wanted
            versions.promote(before.version, NOON, "rolled back")
        assert versions.served_before() is None

    def test_what_is_served_is_told_while_somebody_writes_and_as_it_was_before(
        self, opened: Store, url: str
    ) -> None:
        opened.versions.record("net@0", 0, None, NOON)
        opened.versions.promote("net@0", NOON, "the first")
        other = create_engine(url)
        with other.connect() as writer:
            begin = "BEGIN IMMEDIATE" if other.dialect.name == "sqlite" else "SELECT 1"
            if other.dialect.name == "sqlite":
                writer.connection.driver_connection.isolation_level = None
            writer.exec_driver_sql(begin)
            writer.exec_driver_sql("DELETE FROM promotions")
            served = opened.versions.promoted()
            assert served is not None
            assert served.version == "net@0"
            writer.exec_driver_sql("ROLLBACK")
        other.dispose()

    def test_an_unknown_version_names_the_known_ones(self, opened: Store) -> None:
        opened.versions.record("f@0", 0, None, NOON)
        with pytest.raises(StoreError, match='no model version "f@7"; known: f@0'):
            opened.versions.promote("f@7", NOON, "why not")

    def test_an_evaluation_is_overwritten_by_a_later_one_of_the_same_model_and_images(
        self, opened: Store
    ) -> None:
        for path in ("old.npz", "new.npz"):
            opened.versions.record_evaluation(EvaluationRow("f@0", "f@0-a", "T(0)", "1" * 64, 9, path, "00"))
        assert [r.path for r in opened.versions.evaluations()] == ["new.npz"]

    def test_evaluations_of_other_weights_or_other_label_maps_are_kept_apart(self, opened: Store) -> None:
        rows = [
            EvaluationRow("f@0", key, "T(0)", digest, 9, f"{key}{digest[0]}.npz", "00")
            for key, digest in (("f@0-a", "1" * 64), ("f@0-a", "2" * 64), ("f@0-b", "1" * 64))
        ]
        for row in rows:
            opened.versions.record_evaluation(row)
        assert opened.versions.evaluations() == rows

    def test_a_row_of_a_round_that_does_not_exist_is_refused(self, opened: Store) -> None:
        with pytest.raises(StoreError, match=r"(?i)foreign key"):
            opened.remote.record_ratings(9, [rating("a", "ann", 3)])
