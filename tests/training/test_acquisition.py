"""A target's uncertainty and features of images: aligned, computed once, kept through stops and changes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mad_backend.core.acquisition import AcquisitionScores
from mad_backend.core.records import PoolImage
from mad_backend.models.acquisition import Acquirer
from tests.training.conftest import MakeProject
from training.acquisition import acquisition_scores
from training.project import Project


class StoppedError(Exception):
    pass


def score(
    project: Project, images: list[PoolImage], *, bald: bool = False, stop: bool = False
) -> tuple[AcquisitionScores, int]:
    """The table, and how many images were computed for it, in chunks of 4."""
    computed = 0

    def report(_what: str, done: int, _total: int) -> None:
        nonlocal computed
        computed = done
        if stop:
            raise StoppedError

    version = project.current_target()
    table = acquisition_scores(project, version, images, report, bald=bald, chunk=4)
    return table, computed


def some(project: Project, count: int) -> list[PoolImage]:
    return list(project.pool.values())[:count]


def check_same(one: AcquisitionScores, other: AcquisitionScores) -> None:
    np.testing.assert_array_equal(one.entropy, other.entropy)
    np.testing.assert_array_equal(one.margin, other.margin)
    np.testing.assert_array_equal(one.embeddings, other.embeddings)


def test_every_image_is_scored_as_the_target_scores_it_and_only_once(make_project: MakeProject) -> None:
    project = make_project()
    images = some(project, 6)[::-1]
    table, computed = score(project, images)
    assert computed == 6
    assert table.image_ids == tuple(image.image_id for image in images)
    assert table.mutual_information is None
    assert table.no_information == "BALD was not asked for"
    acquirer = Acquirer(project.target(project.current_target()))
    found = acquirer([project.reader.frame(image, project.grid) for image in images])
    np.testing.assert_allclose(table.entropy, [f.entropy for f in found], atol=1e-6)
    np.testing.assert_allclose(table.margin, [f.margin for f in found], atol=1e-6)
    np.testing.assert_allclose(table.embeddings, [f.embedding for f in found], atol=1e-3)

    again, computed = score(project, images[::-1])
    assert computed == 0
    np.testing.assert_array_equal(again.entropy[::-1], table.entropy)

    bald, computed = score(project, images, bald=True)
    assert computed == 6
    check_same(bald, table)
    assert bald.mutual_information is not None
    assert (bald.mutual_information > 0).all()
    assert not bald.no_information
    again, computed = score(project, images, bald=True)
    assert computed == 0
    np.testing.assert_array_equal(again.mutual_information, bald.mutual_information)


def test_a_run_that_was_stopped_goes_on_where_it_was(make_project: MakeProject) -> None:
    project = make_project()
    with pytest.raises(StoppedError):
        score(project, some(project, 10), stop=True)
    table, computed = score(project, some(project, 10))
    assert computed == 6
    assert len(np.unique(table.entropy)) == 10
    part, computed = score(project, some(project, 6)[2:])
    assert computed == 0
    np.testing.assert_array_equal(part.entropy, table.entropy[2:6])
    np.testing.assert_array_equal(part.embeddings, table.embeddings[2:6])


def test_other_content_is_scored_anew_and_what_cannot_be_read_is_told(
    make_project: MakeProject, tmp_path: Path
) -> None:
    project = make_project()
    good, other, *_ = some(project, 2)
    path = tmp_path / "changing.jpg"
    image = replace(good, path=str(path), etag="")
    path.write_bytes(Path(good.path).read_bytes())
    first, computed = score(project, [image, other])
    assert computed == 2
    path.write_bytes(Path(other.path).read_bytes())
    second, computed = score(project, [image, other])
    assert computed == 1
    assert first.entropy[0] != first.entropy[1]
    assert second.entropy[0] == second.entropy[1]
    path.write_bytes(b"no image")
    gone = PoolImage("pool/gone", str(tmp_path / "gone.jpg"))
    third, computed = score(project, [image, gone, other])
    assert computed == 1
    assert third.image_ids == (other.image_id,)
    check_same(
        third,
        replace(
            second, entropy=second.entropy[1:], margin=second.margin[1:], embeddings=second.embeddings[1:]
        ),
    )
    assert set(third.unreadable) == {image.image_id, gone.image_id}
