"""Settings files: what is refused and how, and every file of configs/."""

import os
from pathlib import Path
from string import Template

import pytest

from mad_backend.core.grid import Fit
from mad_backend.errors import SettingsError
from mad_backend.settings import load_label_set, load_settings, read_yaml

CONFIGS = Path(__file__).parents[1] / "configs"
MINIMAL = """
workspace: runs
label_set: labels.yaml
pool: [{name: d, images: photos}]
s0: [{name: s, images: photos, masks: masks}]
t0: [{name: t, images: /elsewhere/photos, masks: masks}]
models:
  name: f
  target: {kind: hf, path: weights}
  competing: {g: {kind: folder, path: maps, classes: {path: road, config: car}}}
"""


def written(tmp_path: Path, text: str = MINIMAL) -> Path:
    path = tmp_path / "mad.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(written(tmp_path, text))
    return str(caught.value)


def test_a_minimal_file_has_the_papers_defaults(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path))
    assert (settings.grid.size, settings.grid.fit) == (513, Fit.LETTERBOX)
    assert (settings.selection.n3, settings.rating.n4, settings.test_set.size) == (25, 100, 30)
    assert settings.rating.raters == 3


def test_relative_paths_are_relative_to_the_file_and_absolute_ones_stay(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path))
    assert settings.workspace == tmp_path / "runs"
    assert settings.pool[0].images == tmp_path / "photos"
    assert settings.t0[0].images == Path("/elsewhere/photos")
    assert settings.models.competing["g"].path == tmp_path / "maps"
    assert settings.database_url == f"sqlite:///{tmp_path}/runs/mad.sqlite3"


def test_a_class_that_is_called_like_a_path_key_keeps_its_name(tmp_path: Path) -> None:
    assert load_settings(written(tmp_path)).models.competing["g"].classes == {"path": "road", "config": "car"}


@pytest.mark.parametrize(
    ("line", "wrong", "near"),
    [
        ("selektion: {n3: 5}", "selektion", "selection"),
        ("rating: {rater: 2}", "rating.rater", "raters"),
        ("training: {epoch: 2}", "training.epoch", "epochs"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(
    tmp_path: Path, line: str, wrong: str, near: str
) -> None:
    message = refused(tmp_path, f"{MINIMAL}\n{line}")
    assert f'unknown key {wrong}; did you mean "{near}"?' in message
    assert "mad.yaml" in message


def test_an_unknown_key_of_a_model_is_found_in_its_place(tmp_path: Path) -> None:
    message = refused(tmp_path, MINIMAL.replace("path: weights", "path: weights, batchsize: 3"))
    assert 'models.target.batchsize; did you mean "batch_size"?' in message


def test_a_wrong_type_says_where_what_was_wanted_and_what_came(tmp_path: Path) -> None:
    message = refused(tmp_path, f"{MINIMAL}\nselection: {{n3: many}}")
    assert "selection.n3" in message
    assert "valid integer" in message
    assert "'many'" in message


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    assert "workspace: Field required" in refused(tmp_path, MINIMAL.replace("workspace: runs", ""))


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    message = refused(tmp_path, f"{MINIMAL}\nseed: x\ngrid: {{size: 3}}")
    assert "seed" in message
    assert "grid.size" in message


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert "wanted a mapping at the top" in refused(tmp_path, text)


def test_broken_yaml_and_a_missing_file_are_named(tmp_path: Path) -> None:
    assert "is not valid YAML" in refused(tmp_path, "a: [1")
    with pytest.raises(SettingsError, match=r"cannot read .*none\.yaml: No such file"):
        load_settings(tmp_path / "none.yaml")


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mad.yaml"
    path.write_bytes("workspace: Köln".encode("latin-1"))
    with pytest.raises(SettingsError, match=r"mad\.yaml"):
        load_settings(path)


def test_settings_cannot_be_changed_afterwards(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path))
    with pytest.raises(ValueError, match="frozen"):
        settings.seed = 5  # type: ignore[misc]


def test_the_database_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAD_DATABASE", "postgresql+psycopg://db/mad")
    assert load_settings(written(tmp_path)).database_url == "postgresql+psycopg://db/mad"


def test_a_label_set_must_be_whole(tmp_path: Path) -> None:
    path = written(tmp_path, 'name: x\nclasses: [{name: a, color: "#0000"}]')
    with pytest.raises(SettingsError, match="wanted name and classes"):
        load_label_set(path)
    path = written(
        tmp_path,
        'name: x\nclasses: [{name: a, color: "#000000"}, {name: b, color: "#000000", background: true}]',
    )
    with pytest.raises(SettingsError, match="background class must be the first"):
        load_label_set(path)


@pytest.mark.parametrize("path", sorted((CONFIGS / "label_sets").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_label_set_of_the_repository_loads_and_has_colours_of_its_own(path: Path) -> None:
    labels = load_label_set(path)
    assert labels.name == path.stem
    assert len({c.color for c in labels.classes}) == len(labels)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_settings_file_of_the_repository_loads(path: Path, tmp_path: Path) -> None:
    template = Template(path.read_text(encoding="utf-8"))
    places = {name: f"/{name.lower()}" for name in template.get_identifiers()}
    text = template.substitute(places | {"CONFIGS": str(CONFIGS), "SEED": "7"})
    filled = tmp_path / path.name
    filled.write_text(text, encoding="utf-8")
    settings = load_settings(filled)
    label_set = CONFIGS / "label_sets" / settings.label_set.name
    assert label_set.is_file(), os.fspath(settings.label_set)
    labels = load_label_set(label_set)
    for model in settings.models.competing.values():
        assert set(model.classes.values()) <= {*labels.names, "ignore"}
    assert set(settings.selection.windows) <= set(labels.names)
    assert read_yaml(filled)
