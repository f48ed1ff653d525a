"""Masks of projects that are not ours, on a real server, as training data under s0."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from mad_backend.core.labels import VOID, LabelClass, LabelMap, LabelSet
from mad_backend.errors import LabelFormatError, LabelStudioError, PoolError, SettingsError
from mad_backend.label_studio.answers import regions_of
from mad_backend.label_studio.any_project import LabelMapping, mask_interface
from mad_backend.label_studio.label_config import rating_config, segmentation_config
from mad_backend.pool.reader import PoolReader
from mad_backend.pool.sources import list_labelled
from mad_backend.settings import SourceSettings
from mad_backend.settings_file import load_settings
from sync.client import LabelStudioClient
from sync.foreign import ForeignReport, pull_foreign
from sync.shapes import Annotation
from tests.conftest import RunningLabelStudio
from tests.sync.conftest import MakeTheirs
from tests.sync.foreign_project import HEIGHT, LABELS, WIDTH, brush, interface, photo, polygon, square
from training.cli import app

LABEL_SET = Path(__file__).parents[2] / "configs" / "label_sets" / "scenes.yaml"
GERMAN = LabelMapping(LABELS, {"Hund": "dog", "Kätzchen": "cat", "Zaun": "ignore"})


class Counting(LabelStudioClient):
    """Says which tasks' annotations were asked for; gives none any more after `limit` of them."""

    def __init__(self, running: RunningLabelStudio, limit: int = 1000) -> None:
        super().__init__(running.server.url, running.server.token, backoff_s=0.01)
        self.asked: list[int] = []
        self.limit = limit

    def annotations(self, task_id: int) -> list[Annotation]:
        if len(self.asked) >= self.limit:
            raise LabelStudioError("the server went away")
        self.asked.append(task_id)
        return super().annotations(task_id)


def read(found: ForeignReport) -> dict[int, LabelMap]:
    """Task id -> label map, read as training reads S(0); every map is as large as its image."""
    source = SourceSettings(name="theirs", manifest=found.manifest)
    maps = {}
    for item in list_labelled([source], Path("no-mirrors"), LABELS):
        label_map = item.truth.read()
        assert PoolReader.of([source]).rgb(item.image).shape[:2] == label_map.shape
        maps[int(item.image.image_id.removeprefix("theirs/"))] = label_map
    return maps


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kind", ["BrushLabels", "PolygonLabels", "BitmaskLabels"])
def test_brushes_polygons_and_bitmasks_with_german_names_become_label_maps(
    theirs: MakeTheirs, label_studio: RunningLabelStudio, tmp_path: Path, kind: str
) -> None:
    wanted = np.zeros((HEIGHT, WIDTH), np.uint8)
    wanted[square(3, 4)], wanted[square(6, 8)] = 2, 1
    name = {"BrushLabels": "pinsel", "PolygonLabels": "form", "BitmaskLabels": "maske"}[kind]
    if kind == "BrushLabels":
        drawn = [brush(square(3, 4), "Hund"), brush(square(6, 8), "Kätzchen")]
    elif kind == "PolygonLabels":
        drawn = [polygon(3, 4, "Hund"), polygon(6, 8, "Kätzchen")]
    else:
        german = LabelSet("de", tuple(LabelClass(n, (9, 9, 9)) for n in ("Grund", "Kätzchen", "Hund")))
        drawn = [{**r, "from_name": "maske", "to_name": "bild"} for r in regions_of(wanted, german)]
    project = theirs(interface(kind, name, "Hund", "Kätzchen", "Zaun"))
    labelled, open_task = project.add(photo(1), photo(2))
    weather = {"from_name": "wetter", "to_name": "bild", "type": "choices", "value": {"choices": ["Regen"]}}
    project.client.create_annotation(labelled, [weather, *drawn])
    found = pull_foreign(label_studio.admin, project.id, GERMAN, tmp_path / "theirs")
    assert (found.masks, found.made, found.unlabelled, found.left_out) == (1, 1, 1, {})
    (label_map,) = read(found).values()
    assert np.array_equal(label_map, wanted)
    assert open_task not in read(found)


def test_labels_without_a_class_are_named_before_anything_is_fetched(
    theirs: MakeTheirs, label_studio: RunningLabelStudio, tmp_path: Path
) -> None:
    project = theirs(interface("BrushLabels", "pinsel", "Hund", "dog", "Bär"))
    (task,) = project.add(photo(1))
    project.client.create_annotation(task, [brush(square(0, 0), "Bär"), brush(square(9, 9), "dog")])
    client = Counting(label_studio)
    with pytest.raises(
        LabelFormatError, match=r'labels Hund, Bär; .* --map "Hund=\.\.\." --map "Bär=\.\.\."'
    ):
        pull_foreign(client, project.id, LabelMapping(LABELS, {}), tmp_path / "theirs")
    assert client.asked == []
    assert not (tmp_path / "theirs").exists()
    with pytest.raises(SettingsError, match=r'has no class "wolf"; wanted one of .*background, cat, dog'):
        LabelMapping(LABELS, {"Hund": "wolf"})
    rest = LabelMapping(LABELS, {"*": "ignore"})
    found = pull_foreign(client, project.id, rest, tmp_path / "theirs")
    (label_map,) = read(found).values()
    assert np.array_equal(label_map == VOID, square(0, 0))
    assert np.array_equal(label_map == 2, square(9, 9))
    other = pull_foreign(client, project.id, LabelMapping(LABELS, {"*": "background"}), tmp_path / "theirs")
    assert not (read(other)[task] == VOID).any(), "another mapping, another mask"


def test_what_is_left_out_is_told_with_the_reason(
    theirs: MakeTheirs, label_studio: RunningLabelStudio, tmp_path: Path
) -> None:
    project = theirs(interface("BrushLabels", "pinsel", "Hund"))
    tasks = project.add(*[photo(n) for n in range(8)])
    annotate = project.client.create_annotation
    mask = square(2, 2)
    annotate(tasks[0], [], was_cancelled=True)
    annotate(tasks[1], [])
    annotate(tasks[2], [brush(mask, "Wolf")])  # the label was renamed since
    broken = brush(mask, "Hund")
    broken["value"]["rle"] = [1, 2, 3]
    annotate(tasks[3], [broken])
    annotate(tasks[4], [brush(mask, "Hund", image_rotation=90)])
    other_size = brush(square(1, 1, 10, 15), "Hund", original_width=15, original_height=10)
    annotate(tasks[5], [other_size])
    nameless = brush(mask, "Hund")
    del nameless["value"]["brushlabels"]
    annotate(tasks[6], [nameless, brush(mask, "Hund")])
    found = pull_foreign(label_studio.admin, project.id, GERMAN, tmp_path / "theirs")
    assert list(read(found)) == [tasks[6]]
    assert (found.masks, found.unlabelled) == (1, 1)
    told = [
        "skipped",
        "nothing was labelled",
        'label Wolf; .*--map "Wolf=',
        "RLE",
        "turned by 90",
        "height 10, width 15",
    ]
    assert list(found.left_out) == tasks[:6]
    for reason, wanted in zip(found.left_out.values(), told, strict=True):
        assert re.search(wanted, reason), reason
    assert "region 1 has no label" in found.notes[tasks[6]][0]
    again = Counting(label_studio)
    assert pull_foreign(again, project.id, GERMAN, tmp_path / "theirs").left_out == found.left_out
    assert again.asked == []


def test_only_what_changed_is_fetched_again_and_what_was_deleted_goes(
    theirs: MakeTheirs, label_studio: RunningLabelStudio, tmp_path: Path
) -> None:
    project, folder = theirs(interface("BrushLabels", "pinsel", "Hund")), tmp_path / "theirs"
    client = Counting(label_studio)
    tasks = project.add(*[photo(n) for n in range(4)])
    given = [client.create_annotation(t, [brush(square(n, n), "Hund")]) for n, t in enumerate(tasks)]
    assert pull_foreign(client, project.id, GERMAN, folder).made == 4
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.*g")}
    assert len(before) == 8
    client.update_annotation(given[1].annotation_id, [brush(square(12, 12), "Hund")])
    client.delete_annotation(given[2].annotation_id)
    client.delete_task(tasks[3])
    client.asked.clear()
    found = pull_foreign(client, project.id, GERMAN, folder)
    assert client.asked == [tasks[1]]
    assert (found.masks, found.made, found.unlabelled) == (2, 1, 1)
    maps = read(found)
    assert np.array_equal(maps[tasks[0]] == 2, square(0, 0))
    assert np.array_equal(maps[tasks[1]] == 2, square(12, 12))
    left = {p: p.stat().st_mtime_ns for p in folder.rglob("*.*g")}
    assert len(left) == 4
    assert sum(before.get(p) == at for p, at in left.items()) == 3, "all but one mask are as they were"
    assert len(files(folder)) == 4 + 3  # and manifest, journal, lock


def test_of_several_annotations_ground_truth_counts_then_the_latest(
    theirs: MakeTheirs, label_studio: RunningLabelStudio, tmp_path: Path
) -> None:
    project = theirs(interface("BrushLabels", "pinsel", "Hund"))
    first, second = project.add(photo(1), photo(2))
    ann, bob, cat, _ = label_studio.raters
    ann.create_annotation(first, [brush(square(1, 1), "Hund")], ground_truth=True)
    bob.create_annotation(first, [brush(square(2, 2), "Hund")])
    ann.create_annotation(second, [brush(square(3, 3), "Hund")])
    bob.create_annotation(second, [brush(square(4, 4), "Hund")])
    cat.create_annotation(second, [], was_cancelled=True)
    maps = read(pull_foreign(label_studio.admin, project.id, GERMAN, tmp_path / "theirs"))
    assert np.array_equal(maps[first] == 2, square(1, 1))
    assert np.array_equal(maps[second] == 2, square(4, 4))


def test_a_pull_that_was_stopped_goes_on_where_it_was(
    theirs: MakeTheirs, label_studio: RunningLabelStudio, tmp_path: Path
) -> None:
    project, folder = theirs(interface("BrushLabels", "pinsel", "Hund")), tmp_path / "theirs"
    (model,) = project.add(photo(1))
    address = next(data["foto"] for _, data in project.client.task_data(project.id))
    drawn = {"result": [brush(square(5, 5), "Hund")]}
    project.client.import_tasks(project.id, [{"data": {"foto": address}, "annotations": [drawn]}] * 40)
    project.client.create_annotation(model, drawn["result"])
    with pytest.raises(LabelStudioError, match="went away"):
        pull_foreign(Counting(label_studio, limit=34), project.id, GERMAN, folder)
    assert not (folder / "manifest.jsonl").exists()
    with (folder / "pulled.jsonl").open("a") as journal:
        journal.write('{"task": 9, "sta')
    client = Counting(label_studio)
    found = pull_foreign(client, project.id, GERMAN, folder)
    assert len(client.asked) == 41 - 32, "the first chunk was there"
    assert (found.masks, found.made, len(read(found))) == (41, 9, 41)


def test_photos_that_are_stored_lying_have_masks_that_stand_as_the_browser_shows_them(
    theirs: MakeTheirs, label_studio: RunningLabelStudio, tmp_path: Path
) -> None:
    project = theirs(interface("BrushLabels", "pinsel", "Hund"))
    as_seen, as_stored = project.add(photo(1, orientation=6), photo(2, orientation=6))
    upright = square(3, 1, WIDTH, HEIGHT)
    turned = brush(upright, "Hund", original_width=HEIGHT, original_height=WIDTH)
    project.client.create_annotation(as_seen, [turned])
    project.client.create_annotation(as_stored, [brush(square(3, 1), "Hund")])
    found = pull_foreign(label_studio.admin, project.id, GERMAN, tmp_path / "theirs")
    assert np.array_equal(read(found)[as_seen] == 2, upright)
    assert f"the image has {WIDTH}, {HEIGHT}" in found.left_out[as_stored]


def test_an_image_that_cannot_be_had_leaves_its_mask_out_until_it_can(
    theirs: MakeTheirs, label_studio: RunningLabelStudio, tmp_path: Path
) -> None:
    project, folder = theirs(interface("BrushLabels", "pinsel", "Hund")), tmp_path / "theirs"
    (there,) = project.add(photo(1))
    drawn = {"result": [brush(square(5, 5), "Hund")]}
    project.client.create_annotation(there, drawn["result"])
    addresses = ["/data/upload/9/none.jpg", "", "http://127.0.0.1:1/x.jpg"]
    project.client.import_tasks(
        project.id, [{"data": {"foto": address}, "annotations": [drawn]} for address in addresses]
    )
    found = pull_foreign(Counting(label_studio), project.id, GERMAN, folder)
    assert found.masks == 1
    reasons = list(found.left_out.values())
    told = ["downloading /data/upload/9/none.jpg", "no address", "127.0.0.1:1"]
    for reason, wanted in zip(reasons, told, strict=True):
        assert wanted in reason
    again = Counting(label_studio)
    pull_foreign(again, project.id, GERMAN, folder)
    assert len(again.asked) == 2, "asked again for those whose image may come"


def test_projects_that_cannot_be_meant_are_refused(
    theirs: MakeTheirs, label_studio: RunningLabelStudio, tmp_path: Path
) -> None:
    client = label_studio.admin
    with pytest.raises(PoolError, match="has no project 987654"):
        pull_foreign(client, 987654, GERMAN, tmp_path)
    with pytest.raises(LabelFormatError, match=r"found 2; fields: image, overlay"):
        pull_foreign(client, theirs(rating_config()).id, GERMAN, tmp_path)
    ours = client.create_project(
        title="ours", label_config=segmentation_config(LABELS), description=f"key mad-{'0' * 24}"
    )
    with pytest.raises(PoolError, match="is a project of rounds"):
        pull_foreign(client, ours.project_id, GERMAN, tmp_path)
    client.delete_project(ours.project_id)


def test_of_an_interface_with_two_images_the_named_one_is_read() -> None:
    config = (
        '<View><Image name="a" value="$left"/><Image name="b" value="$right"/><View>'
        '<PolygonLabels name="p" toName="b"><Label value="Hund" alias="dog"/></PolygonLabels>'
        '<BrushLabels name="q" toName="a"><Label value="Baum"/></BrushLabels></View></View>'
    )
    with pytest.raises(LabelFormatError, match="fields: left, right"):
        mask_interface(config)
    right = mask_interface(config, "right")
    assert (right.image_tag, right.labels) == ("b", ("dog",))
    assert right.regions_of([{"to_name": "a"}, {"to_name": "b", "id": "1"}]) == [{"to_name": "b", "id": "1"}]
    with pytest.raises(LabelFormatError, match="nothing marks areas"):
        mask_interface('<View><Image name="a" value="$i"/></View>')


def test_mad_pull_prints_the_lines_that_make_it_a_source(
    theirs: MakeTheirs, label_studio: RunningLabelStudio, tmp_path: Path
) -> None:
    project = theirs(interface("PolygonLabels", "form", "Hund", "Katze"))
    task, skipped = project.add(photo(1), photo(2))
    project.client.create_annotation(task, [polygon(1, 1, "Hund")])
    project.client.create_annotation(skipped, [], was_cancelled=True)
    config = tmp_path / "mad.yaml"
    model = {"kind": "folder", "path": str(tmp_path)}
    settings = {
        "workspace": "runs",
        "label_set": str(LABEL_SET),
        "pool": [{"name": "p", "images": "."}],
        "s0": [{"name": "p", "images": "."}],
        "t0": [{"name": "p", "images": "."}],
        "models": {"name": "m", "target": model, "competing": {"g": model}},
    }
    config.write_text(yaml.safe_dump(settings))
    environment = {
        "MAD_LABEL_STUDIO_URL": label_studio.server.url,
        "MAD_LABEL_STUDIO_TOKEN": label_studio.server.token,
    }
    asked = ["pull", "--project", str(project.id), "--name", "theirs", "--config", str(config)]
    maps = ["--map", "Hund=animal", "--map", "*=background"]
    answer = CliRunner().invoke(app, [*asked, *maps], env=environment)
    assert answer.exit_code == 0, answer.output
    assert f'project {project.id} "Straßenbilder": 1 masks, 1 of them new or changed' in answer.output
    assert f"task {skipped}: skipped" in answer.output
    assert label_studio.server.token not in answer.output
    (line,) = [text for text in answer.output.splitlines() if "manifest:" in text]
    (source,) = yaml.safe_load(line)
    assert source == {"name": "theirs", "manifest": "runs/extra/theirs/manifest.jsonl"}
    config.write_text(yaml.safe_dump({**settings, "s0": [source]}))
    (item,) = list_labelled(load_settings(config).s0, Path("no-mirrors"), LABELS)
    assert item.image.image_id == f"theirs/{task}"
    again = CliRunner().invoke(app, [*asked, *maps], env=environment)
    assert "the source stands under s0: already" in again.output
    other = theirs(interface("PolygonLabels", "form", "Hund"))
    with pytest.raises(PoolError, match=f"holds the masks of project {project.id}; give project"):
        pull_foreign(label_studio.admin, other.id, GERMAN, tmp_path / "runs" / "extra" / "theirs")
    config.write_text(
        yaml.safe_dump({**settings, "t0": [{"name": "t", "label_studio": {"project": project.id}}]})
    )
    measured = CliRunner().invoke(app, [*asked, *maps], env=environment)
    assert "may not be trained on" in str(measured.exception)
    wrong = CliRunner().invoke(app, [*asked[:3], "--name", "..", *asked[5:]], env=environment)
    assert isinstance(wrong.exception, SettingsError)
