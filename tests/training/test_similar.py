"""`mad similar`: a planted near copy comes first, what is spent is marked, and what is not there is named."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from mad_backend.core.records import Failure
from mad_backend.errors import ImageError, ModelError, PoolError
from tests.training.conftest import MakeProject, settings_of
from tests.training.test_pages import outline
from training.cli import app
from training.project import Project
from training.similar import Similar, find_similar, similar_page


@pytest.fixture(scope="module")
def photos(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight scenes 0..7, and a copy of 3 at another quality."""
    folder = tmp_path_factory.mktemp("photos")
    for n, path in enumerate(sorted((scenes / "pool" / "images").iterdir())[:8]):
        shutil.copy(path, folder / f"street-{n}{path.suffix}")
    with Image.open(next(folder.glob("street-3.*"))) as image:
        image.save(folder / "copy-of-3.jpg", quality=60)
    return folder


def project_of(make_project: MakeProject, photos: Path) -> Project:
    return make_project(pool=[{"name": "pool", "images": str(photos)}])


def find(project: Project, wanted: str, top: int = 20) -> Similar:
    return find_similar(project, wanted, top, lambda *_: None)


def test_a_near_copy_comes_first_and_spent_images_are_marked(
    make_project: MakeProject, photos: Path, tmp_path: Path
) -> None:
    project = project_of(make_project, photos)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    project.store.rounds.create(1, 0, now, "scenes@0")
    project.store.choices.record_cut(
        1, [Failure("pool/copy-of-3", 1.0)], ["pool/street-5"], {"pool/street-6": "ann"}
    )
    found = find(project, "pool/street-3")
    first = found.neighbours[0]
    assert (first.image_id, first.spent) == ("pool/copy-of-3", "S(1)")
    assert first.cosine > 0.99
    cosines = [n.cosine for n in found.neighbours]
    assert cosines == sorted(cosines, reverse=True)
    assert {n.image_id: n.spent for n in found.neighbours if n.spent} == {
        "pool/copy-of-3": "S(1)",
        "pool/street-5": "T(1)",
        "pool/street-6": "vetoed",
    }
    assert (len(found.neighbours), found.of) == (8, 8)

    photo = tmp_path / "elsewhere.png"
    with Image.open(next(photos.glob("street-4.*"))) as image:
        image.save(photo)
    assert find(project, str(photo), top=1).neighbours[0].image_id == "pool/street-4"
    inside = find(project, str(next(photos.glob("street-3.*"))))
    assert inside.image.image_id == "pool/street-3"
    assert inside.neighbours == found.neighbours

    page = outline(similar_page(project, found))
    assert page.tags.count("img") == 9
    assert all(place.startswith("data:image/jpeg;base64,") for place in page.fetched)

    command = ["similar", "pool/street-3", "--top", "2", "--config", str(project.config)]
    told = CliRunner().invoke(app, [*command, "--json"]).stdout
    assert [one["image_id"] for one in json.loads(told)["similar"]] == [
        n.image_id for n in found.neighbours[:2]
    ]
    text = CliRunner().invoke(app, command, env={"COLUMNS": "120"}).stdout
    assert "compared with 8 images of the pool by the features of scenes@0" in text
    assert "pool/copy-of-3" in text


def test_an_image_that_is_not_there_is_an_error_that_names_near_ones(
    make_project: MakeProject, photos: Path, tmp_path: Path
) -> None:
    project = project_of(make_project, photos)
    with pytest.raises(PoolError, match=r'no image "pool/stret-3" in the pool.*nearest ids are pool/street-'):
        find(project, "pool/stret-3")
    with pytest.raises(PoolError, match="ids are as pool/copy-of-3"):
        find(project, "0")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        find(project, str(broken))


def test_a_target_without_features_is_named_by_its_kind(make_project: MakeProject, scenes: Path) -> None:
    models = settings_of(scenes, scenes)["models"]
    folder = {"kind": "folder", "path": str(scenes / "models" / "shifted")}
    project = make_project(models={**models, "target": folder})
    with pytest.raises(ModelError, match='kind "folder" gives label maps only'):
        find(project, min(project.pool))
