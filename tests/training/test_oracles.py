"""Simulated raters: deterministic, better maps never rated worse, a veto where nothing is to be seen."""

from pathlib import Path

import numpy as np
import pytest

from mad_backend.core.labels import VOID, LabelClass, LabelMap, LabelSet
from mad_backend.core.records import ErrorType
from mad_backend.pool.mask_files import write_mask
from mad_backend.pool.sources import list_labelled
from mad_backend.pool.truths import Truth
from mad_backend.settings import OracleSettings
from tests.training.conftest import MakeProject
from training.oracles import Oracle
from training.project import Project
from training.scenes import HOUSE, TREE

RATERS = ("ann", "bob", "cat")


@pytest.fixture(scope="module")
def truths(finished: Project) -> dict[str, LabelMap]:
    return {
        i.image.image_id: i.truth.read()
        for i in list_labelled(finished.settings.pool, finished.settings.mirrors, finished.labels)
    }


def spoilt(truth: LabelMap, share: float) -> LabelMap:
    """The first `share` of all pixels in a fixed random order turned to background."""
    order = np.random.default_rng(0).permutation(truth.size)[: int(share * truth.size)]
    worse = truth.ravel().copy()
    worse[order] = 0
    return worse.reshape(truth.shape)


def test_opinions_never_rise_when_a_map_gets_worse(finished: Project, truths: dict[str, LabelMap]) -> None:
    oracle = Oracle.of(finished)
    seen = set()
    for image_id, truth in list(truths.items())[:10]:
        for rater in RATERS:
            scores = [oracle.opinion(image_id, rater, spoilt(truth, s)) for s in (0, 0.2, 0.4, 0.6, 0.8, 1)]
            if None in scores:
                assert set(scores) == {None}
                continue
            given = [s for s in scores if s is not None]
            assert given == sorted(given, reverse=True)
            seen.update(given)
    assert seen == {1, 2, 3, 4, 5}


def test_a_perfect_map_is_excellent_and_an_empty_one_is_not(
    finished: Project, truths: dict[str, LabelMap]
) -> None:
    oracle = Oracle.of(finished)
    image_id, truth = next((i, t) for i, t in truths.items() if t.any())
    assert {oracle.opinion(image_id, r, truth) for r in RATERS} == {5}
    assert all((oracle.opinion(image_id, r, np.zeros_like(truth)) or 9) <= 2 for r in RATERS)


def test_an_image_without_any_object_is_vetoed_by_everybody(
    finished: Project, truths: dict[str, LabelMap]
) -> None:
    oracle = Oracle.of(finished)
    empty = [i for i, t in truths.items() if not t.any()]
    assert empty, "choose a seed whose pool has an image without an object"
    for image_id in empty:
        assert {oracle.opinion(image_id, r, np.ones_like(truths[image_id])) for r in RATERS} == {None}


def test_the_same_question_gets_the_same_answer(
    finished: Project, make_project: MakeProject, truths: dict[str, LabelMap]
) -> None:
    def answers(project: Project) -> list[int | None]:
        oracle = Oracle.of(project)
        return [oracle.opinion(i, r, spoilt(t, 0.3)) for i, t in truths.items() for r in RATERS]

    assert answers(finished) == answers(make_project("same"))
    assert answers(finished) != answers(make_project("other", seed=99))


def test_raters_differ(finished: Project, truths: dict[str, LabelMap]) -> None:
    oracle = Oracle.of(finished)
    answers = {r: [oracle.opinion(i, r, spoilt(t, 0.3)) for i, t in truths.items()] for r in RATERS}
    assert len({tuple(a) for a in answers.values()}) == 3


def test_an_annotator_draws_the_truth(finished: Project, truths: dict[str, LabelMap]) -> None:
    oracle = Oracle.of(finished)
    for image_id, truth in truths.items():
        np.testing.assert_array_equal(oracle.drawing(image_id), truth)


def test_a_hasty_annotator_forgets_a_class_now_and_then_and_checkers_call_it_missing(
    finished: Project, truths: dict[str, LabelMap]
) -> None:
    oracle, slips = Oracle.of(finished), 0
    for image_id, truth in truths.items():
        drawn = oracle.hasty_drawing(image_id)
        np.testing.assert_array_equal(drawn, oracle.hasty_drawing(image_id))
        wrong = drawn != truth
        slips += wrong.any()
        assert oracle.errors(image_id, drawn) == ((ErrorType.MISSING,) if wrong.any() else ())
        assert len(np.unique(truth[wrong])) <= 1
        assert not drawn[wrong].any()
        assert drawn.any() == truth.any(), "an empty drawing would be none"
    assert 0 < slips < len(truths) / 3


def test_every_kind_of_error_is_told(finished: Project, truths: dict[str, LabelMap]) -> None:
    oracle = Oracle.of(finished)
    image_id, truth = next((i, t) for i, t in truths.items() if (t == TREE).any() and (t == 0).any())
    for value, where, kind in (
        (TREE, truth == 0, ErrorType.BOUNDARY),
        (0, truth == TREE, ErrorType.MISSING),
        (HOUSE, truth == TREE, ErrorType.WRONG_CLASS),
        (VOID, truth == TREE, ErrorType.VOID),
    ):
        assert oracle.errors(image_id, np.where(where, value, truth).astype(np.uint8)) == (kind,)
    assert oracle.errors(image_id, truth) == ()


def an_oracle(truths: dict[str, LabelMap], folder: Path, **settings: float) -> Oracle:
    """Of two classes and a background, whose people err as `settings` say and in nothing else."""
    labels = LabelSet(
        "three", tuple(LabelClass(name, (n, n, n)) for n, name in enumerate(("sky", "cat", "dog")))
    )
    found = {}
    for name, truth in truths.items():
        write_mask(folder / f"{name}.png", truth)
        found[name] = Truth(folder / f"{name}.png")
    return Oracle(labels, found, 5, OracleSettings(**{"noise": 0, "bias": 0, **settings}))


def test_outlines_are_off_by_no_more_than_settings_say(tmp_path: Path) -> None:
    truth = np.zeros((60, 80), np.uint8)
    truth[20:40, 30:60] = 1
    drawn = an_oracle({"a": truth}, tmp_path, boundary=3).flawed_drawing("a")
    wrong = np.argwhere(drawn != truth)
    assert len(wrong)
    inside, outside = truth[23:37, 33:57], np.ones_like(truth, bool)
    outside[17:43, 27:63] = False
    assert (drawn[23:37, 33:57] == inside).all()
    assert not drawn[outside].any()
    assert (an_oracle({"a": truth}, tmp_path).flawed_drawing("a") == truth).all()


def test_a_confused_annotator_gives_an_object_another_class_now_and_then(tmp_path: Path) -> None:
    truth = np.ones((4, 4), np.uint8)
    truth[0] = 0
    names = {f"image-{n}": truth for n in range(200)}
    oracle = an_oracle(names, tmp_path, confusion=0.25)
    drawn = [oracle.flawed_drawing(name) for name in names]
    assert {tuple(np.unique(d)) for d in drawn} == {(0, 1), (0, 2)}
    assert 0.15 < np.mean([2 in d for d in drawn]) < 0.35


def test_a_rater_who_makes_mistakes_answers_anything_now_and_then(tmp_path: Path) -> None:
    truth = np.ones((4, 4), np.uint8)
    names = {f"image-{n}": truth for n in range(200)}
    scores = [an_oracle(names, tmp_path, mistakes=0.5).opinion(name, "ann", truth) for name in names]
    # A fifth of mistakes are right by chance.
    assert 0.3 < np.mean([score != 5 for score in scores]) < 0.5
    assert set(scores) == {1, 2, 3, 4, 5}


def test_answers_take_about_as_long_as_settings_say(tmp_path: Path) -> None:
    oracle = an_oracle({}, tmp_path, rating_s=4, mask_s=100)
    for kind, median in (("rating", 4), ("mask", 100)):
        times = [oracle.seconds(kind, str(n)) for n in range(400)]
        assert np.median(times) == pytest.approx(median, rel=0.15)
        assert times[0] == oracle.seconds(kind, "0")
