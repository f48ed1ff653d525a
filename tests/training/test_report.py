"""Table 1 of a project after two rounds."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mad_backend.core.metrics import dataset_miou, image_miou
from mad_backend.store.store import Store
from training.evaluate import read_matrices
from training.project import Project
from training.report import Report, build_report, change_lines, decision_lines, missing_line, table_1

MODELS = ["confused", "shifted", "scenes@0", "scenes@1", "scenes@2"]
SETS = ["T(0)", "T(1)", "T(2)"]


@pytest.fixture(scope="module")
def report(finished: Project) -> Report:
    return build_report(finished)


def test_every_model_has_a_cell_on_every_set(report: Report) -> None:
    assert {(c.model, c.image_set) for c in report.cells} == {(m, s) for m in MODELS for s in SETS}


def test_cells_hold_the_mious_of_the_recorded_matrices_inside_their_intervals(
    finished: Project, report: Report
) -> None:
    rows = {(r.model, r.image_set): read_matrices(r) for r in finished.store.versions.evaluations()}
    for cell in report.cells:
        matrices = rows[cell.model, cell.image_set]
        assert cell.miou == dataset_miou(matrices)
        assert cell.image_miou == image_miou(matrices)
        assert cell.images == len(matrices)
        assert 0 <= cell.low <= cell.high <= 1
    assert report.miou("shifted")["T(1)"] == dataset_miou(rows["shifted", "T(1)"])


def test_changes_compare_each_version_with_the_one_it_started_from(finished: Project, report: Report) -> None:
    started = {f"scenes@{n}": finished.store.rounds.get(n).target for n in (1, 2)}
    assert [(c.before, c.after, c.image_set) for c in report.changes] == [
        (started[v], v, s) for v in ("scenes@1", "scenes@2") for s in SETS
    ]
    for change in report.changes:
        gain = report.miou(change.after)[change.image_set] - report.miou(change.before)[change.image_set]
        assert change.difference == pytest.approx(gain)
        assert change.low <= change.high
    assert change_lines(report)[0].startswith("scenes@1 - scenes@0 on T(0): ")


def test_the_table_lists_competing_models_first_and_then_the_versions(
    finished: Project, report: Report
) -> None:
    sheet = io.StringIO()
    Console(file=sheet, width=240).print(table_1(finished, report))
    text = sheet.getvalue()
    places = [text.index(name) for name in ("confused", "shifted", "target scenes@0", "target scenes@1")]
    assert places == sorted(places)
    for image_set in SETS:
        assert f"{image_set}, 4 images" in text or image_set in text
    for cell in report.cells:
        assert f"{cell.miou:.4f} [{cell.low:.3f}, {cell.high:.3f}], {cell.image_miou:.3f}" in text


def test_the_written_report_says_the_same(finished: Project, report: Report) -> None:
    path = Path(finished.settings.workspace) / "reports" / "table-1.json"
    written = json.loads(path.read_text())
    assert {(c["model"], c["image_set"]): c["miou"] for c in written["cells"]} == {
        (c.model, c.image_set): c.miou for c in report.cells
    }
    assert len(written["changes"]) == len(report.changes)
    assert report.missing == ()
    assert missing_line(report) is None


def test_the_last_decision_is_told_as_it_was_stored_and_written_with_all_its_figures(
    finished: Project,
) -> None:
    outcome = finished.store.rounds.get(2).outcome or ""
    lines = decision_lines(finished)
    assert lines[0] == f"round 2, {outcome.splitlines()[0]}"
    assert [line.strip() for line in lines[1:5]] == outcome.splitlines()[1:]
    written = json.loads((finished.settings.workspace / "reports" / "round-002.json").read_text())
    assert written["reason"] == outcome
    assert written["promote"] is outcome.startswith("promoted")
    assert [c["name"] for c in written["checks"]] == ["t0", "gain", "suite"]
    assert (written["t0"]["name"], written["tests"]["name"]) == ("T(0)", "T(1)..T(2)")
    assert written["settings"]["suite_tolerance"] == finished.settings.promotion.suite_tolerance


def test_what_was_measured_with_other_label_maps_is_left_out_and_named(
    finished: Project, tmp_path: Path
) -> None:
    """The same project, asked for mIoU after somebody replaced an image's label map by another's."""
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copytree(finished.settings.workspace / "ledger", copy / "ledger")
    for file in finished.settings.workspace.glob("mad.sqlite3*"):
        shutil.copy(file, copy)
    settings = finished.settings.model_copy(update={"workspace": copy})
    project = Project(finished.config, settings, finished.labels, Store(settings.database_url))
    drawn, other = project.store.choices.test_set(1)[:2]
    mask = project.store.remote.masks(1)[drawn]
    path = project.store.remote.masks(1)[other].path
    project.store.remote.record_mask(1, replace(mask, path=path, sha256="1" * 64))
    report = build_report(project)
    project.store.close()
    assert {c.image_set for c in report.cells} == {"T(0)", "T(2)"}
    assert report.missing == tuple(f"{m} on T(1)" for m in MODELS)
    assert (missing_line(report) or "").endswith("scenes@1 on T(1), scenes@2 on T(1)")


def test_building_it_again_gives_the_same_report(finished: Project, report: Report) -> None:
    assert build_report(finished) == report
