"""Settings files: what is refused and how, and every file of configs/."""

import os
import re
from pathlib import Path
from string import Template

import pytest

from mad_backend.core.grid import Fit
from mad_backend.errors import SettingsError
from mad_backend.settings_file import load_label_set, load_settings, read_yaml

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


def test_a_test_set_that_grows_draws_as_many_images_as_it_may_come_to(tmp_path: Path) -> None:
    growing = load_settings(written(tmp_path, MINIMAL + "test_set: {size: stable, largest: 50}\n")).test_set
    assert (growing.size, growing.smallest, growing.step, growing.drawn) == ("stable", 20, 5, 50)
    assert load_settings(written(tmp_path)).test_set.drawn == 30
    wrong = refused(tmp_path, MINIMAL + "test_set: {size: stable, smallest: 40, largest: 30}\n")
    assert "test_set.smallest 40 is more than largest 30" in wrong
    assert "test_set.size" in refused(tmp_path, MINIMAL + "test_set: {size: steady}\n")


def test_relative_paths_are_relative_to_the_file_and_absolute_ones_stay(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path))
    assert settings.workspace == tmp_path / "runs"
    assert settings.pool[0].images == tmp_path / "photos"
    assert settings.t0[0].images == Path("/elsewhere/photos")
    assert settings.models.competing["g"].path == tmp_path / "maps"
    assert settings.database_url == f"sqlite:///{tmp_path}/runs/mad.sqlite3"


POOL = "pool: [{name: d, images: photos}]"


@pytest.mark.parametrize(
    ("source", "images", "manifest"),
    [
        ("images: s3://bucket//odd/prefix", "s3://bucket//odd/prefix", None),
        ("images: file:///data/photos", Path("/data/photos"), None),
        ("manifest: lists/a.csv", None, "lists/a.csv"),
        ("manifest: https://host/a.csv, images: photos", "photos", "https://host/a.csv"),
    ],
)
def test_addresses_stay_as_they_are_and_paths_become_absolute(
    tmp_path: Path, source: str, images: str | Path | None, manifest: str | None
) -> None:
    def place(wanted: str | Path | None) -> str | Path | None:
        is_relative = isinstance(wanted, str) and "://" not in wanted
        return tmp_path / wanted if is_relative else wanted

    (found,) = load_settings(written(tmp_path, MINIMAL.replace(POOL, f"pool: [{{name: d, {source}}}]"))).pool
    assert (found.images, found.manifest) == (place(images), place(manifest))


def test_options_of_a_store_keep_their_types_and_are_no_paths(tmp_path: Path) -> None:
    source = "images: s3://b, storage_options: {endpoint_url: 'http://h', anon: true, retries: 3, path: x, token: anon}"
    (found,) = load_settings(written(tmp_path, MINIMAL.replace(POOL, f"pool: [{{name: d, {source}}}]"))).pool
    wanted = {"endpoint_url": "http://h", "anon": True, "retries": 3, "path": "x", "token": "anon"}
    assert found.storage_options == wanted


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("list: a.txt", "needs one origin: images, manifest .* or label_studio; got none"),
        ("images: a, label_studio: {project: 1}", "needs one origin: .*; got images and label_studio"),
        ("manifest: a.csv, list: b.txt", "list chooses from a folder; a manifest names its images itself"),
        (
            "images: 'https://host/photos'",
            "a web server does not tell what it holds; name its images in a manifest",
        ),
        ("images: 'zip://a::s3://b'", "chained addresses"),
        ("images: [a, b]", r"pool.0.images: wanted a path or an address, got \['a', 'b'\]"),
        ("label_studio: {project: 0}", "pool.0.label_studio.project: Input should be greater"),
        ("label_studio: {project: 1, viev: 3}", 'unknown key pool.0.label_studio.viev; did you mean "view"'),
    ],
)
def test_a_source_has_one_origin(tmp_path: Path, source: str, wrong: str) -> None:
    message = refused(tmp_path, MINIMAL.replace(POOL, f"pool: [{{name: d, {source}}}]"))
    assert re.search(wrong, message), message


@pytest.mark.parametrize(
    "source",
    [
        "images: s3://b, storage_options: {secret: HUSH}",
        "images: s3://b, storage_options: {key: HUSH}",
        "images: az://b, storage_options: {account_key: HUSH}",
        "images: gs://b, storage_options: {token: HUSH.json}",
        "images: s3://b, storage_options: {client_kwargs: {aws_secret_access_key: HUSH}}",
        "images: 'sftp://me:HUSH@host/photos'",
        "manifest: 'https://me:HUSH@host/a.csv', storage_options: {sas_token: HUSH}",
    ],
)
def test_secrets_are_refused_without_being_shown(tmp_path: Path, source: str) -> None:
    message = refused(tmp_path, MINIMAL.replace(POOL, f"pool: [{{name: d, {source}}}]"))
    assert "HUSH" not in message
    if "client_kwargs" not in source:
        assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in message


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


def test_a_model_s_images_are_a_word_and_no_folder(tmp_path: Path) -> None:
    text = MINIMAL.replace(
        "{kind: hf, path: weights}", '{kind: label_studio, url: "http://h", images: address}'
    )
    (tmp_path / "mad.yaml").write_text(text)
    assert load_settings(tmp_path / "mad.yaml").models.target.images == "address"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("{kind: hf}", "models.target: wanted path, or url for kind label_studio"),
        ("{kind: hf, path: w, device: gpu}", "models.target.device: String should match pattern"),
        ("{kind: hf, path: w, input_size: [3, 0]}", "models.target.input_size"),
        ("{kind: hf, path: w, fit: square}", "models.target.fit: Input should be 'pad', 'keep' or 'stretch'"),
        ("{kind: hf, path: w, precision: int8}", "models.target.precision"),
    ],
)
def test_settings_of_a_model_are_checked(tmp_path: Path, given: str, why: str) -> None:
    assert why in refused(tmp_path, MINIMAL.replace("{kind: hf, path: weights}", given))


@pytest.mark.parametrize(
    ("scan", "told"),
    [
        ("{engine: ray, devices: ['cuda:0']}", "scan.devices is for engine local"),
        ("{devices: [gpu0]}", "scan.devices.0"),
        ("{ray: {address: head}}", "scan.ray.address"),
        ("{ray: {cpus_per_actor: 0}}", "scan.ray.cpus_per_actor"),
    ],
)
def test_a_scan_on_what_there_cannot_be_is_refused(tmp_path: Path, scan: str, told: str) -> None:
    assert told in refused(tmp_path, f"{MINIMAL}scan: {scan}\n")


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("rating: {blind: true, people: [a@x.org]}", r"rating.*as many emails as rating.raters \(3\), got 1"),
        ("rating: {people: [a@x.org, a@x.org]}", "names somebody twice"),
        ("label_studio: {media: serve}", "serve wants serve.public_url"),
        ("label_studio: {media: local-files}", "wants label_studio.local_files.root"),
        ("label_studio: {media: cloud}", "wants label_studio.cloud.prefix"),
        ("label_studio: {media: cloud, cloud: {prefix: bucket}}", "label_studio.cloud.prefix"),
        ("segmentation: {start_form: best}", 'did you mean "start_from"'),
        ("serve: {public_url: 'https://mad.example.com/?x=1'}", "serve.public_url"),
    ],
)
def test_settings_of_the_work_with_people_that_cannot_work_are_refused(
    tmp_path: Path, line: str, wrong: str
) -> None:
    assert re.search(wrong, refused(tmp_path, f"{MINIMAL}{line}\n"))


def test_addresses_and_files_of_the_server_are_read_as_they_are_meant(tmp_path: Path) -> None:
    lines = (
        "label_studio: {ca_file: ca.pem, media: local-files, local_files: {root: files}}\n"
        "serve: {public_url: 'https://mad.example.com/mad/'}\n"
    )
    settings = load_settings(written(tmp_path, MINIMAL + lines))
    assert settings.label_studio.ca_file == tmp_path / "ca.pem"
    assert settings.label_studio.local_files is not None
    assert settings.label_studio.local_files.root == tmp_path / "files"
    assert settings.serve.public_url == "https://mad.example.com/mad"
