"""Table 1 of a project after two rounds."""

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from typer.testing import CliRunner

from mad_backend.core.metrics import dataset_miou, image_miou, iou_per_class, pixel_accuracy
from mad_backend.errors import SettingsError
from mad_backend.store.store import Store
from tests.training.conftest import MakeProject
from training.cli import app
from training.decisions import last_decision
from training.evaluate import read_matrices
from training.project import Project
from training.report import Report, build_report
from training.report_files import COLUMNS, report_csv, report_json, write_text
from training.report_page import report_page
from training.report_text import change_lines, class_table, notes, table_1

MODELS = ["confused", "shifted", "scenes@0", "scenes@1", "scenes@2"]
SETS = ["T(0)", "T(1)", "T(2)"]


@pytest.fixture(scope="module")
def report(finished: Project) -> Report:
    return build_report(finished)


def printed(table: Table) -> str:
    sheet = io.StringIO()
    Console(file=sheet, width=240).print(table)
    return sheet.getvalue()


def best_on_t2(report: Report) -> tuple[str, str]:
    return report.leads[-1].other, "T(2)"


def test_every_model_has_a_cell_on_every_set(report: Report) -> None:
    assert {(c.model, c.image_set) for c in report.cells} == {(m, s) for m in MODELS for s in SETS}


def test_cells_hold_the_mious_of_the_recorded_matrices_inside_their_intervals(
    finished: Project, report: Report
) -> None:
    rows = {(r.model, r.image_set): read_matrices(r) for r in finished.store.versions.evaluations()}
    for cell in report.cells:
        matrices, found = rows[cell.model, cell.image_set], cell.figures
        assert found.dataset_miou.value == pytest.approx(dataset_miou(matrices))
        assert found.image_miou.value == pytest.approx(image_miou(matrices))
        assert found.pixel_accuracy.value == pytest.approx(pixel_accuracy(matrices.sum(axis=0)))
        ious = [iou.value for iou in found.per_class]
        assert ious == pytest.approx(iou_per_class(matrices.sum(axis=0)).tolist(), nan_ok=True)
        assert found.images == len(matrices)
        for one in (found.dataset_miou, found.image_miou, found.pixel_accuracy):
            assert 0 <= one.low <= one.high <= 1
    assert report.miou("shifted")["T(1)"] == dataset_miou(rows["shifted", "T(1)"])


def test_changes_compare_each_version_with_the_one_it_started_from(finished: Project, report: Report) -> None:
    started = {f"scenes@{n}": finished.store.rounds.get(n).target for n in (1, 2)}
    assert [(c.other, c.model, c.image_set) for c in report.changes] == [
        (started[v], v, s) for v in ("scenes@1", "scenes@2") for s in SETS
    ]
    for change in (*report.changes, *report.leads):
        gain = report.miou(change.model)[change.image_set] - report.miou(change.other)[change.image_set]
        assert change.estimate.value == pytest.approx(gain)
        assert change.estimate.low <= change.estimate.high
    assert change_lines(report)[0].startswith("scenes@1 - scenes@0 on T(0): ")


def test_every_version_is_compared_with_the_best_competing_model_of_each_set(report: Report) -> None:
    best = {s: max(("confused", "shifted"), key=lambda m: report.miou(m)[s]) for s in SETS}
    assert [(c.model, c.other, c.image_set) for c in report.leads] == [
        (f"scenes@{n}", best[s], s) for s in SETS for n in range(3)
    ]
    assert f"scenes@0 - {best['T(0)']}, the best competing model on T(0): " in "\n".join(change_lines(report))


def test_the_table_lists_competing_models_first_and_then_the_versions(
    finished: Project, report: Report
) -> None:
    text = printed(table_1(report))
    places = [text.index(name) for name in ("confused", "shifted", "target scenes@0", "target scenes@1")]
    assert places == sorted(places)
    for image_set in SETS:
        assert f"{image_set}, 4 images" in text
    for cell in report.cells:
        for one in (cell.figures.dataset_miou, cell.figures.image_miou, cell.figures.pixel_accuracy):
            assert f"{one.value:.4f} [{one.low:.3f},{one.high:.3f}]" in text


def test_the_table_of_classes_has_every_class_and_model_of_a_set(report: Report) -> None:
    text = printed(class_table(report, "T(1)"))
    assert all(name in text for name in (*report.classes, *MODELS))
    house = next(c for c in report.cells if c.image_set == "T(1)").figures.per_class[2]
    assert f"{house.value:.4f} [{house.low:.3f},{house.high:.3f}]" in text


def test_the_written_report_says_the_same(finished: Project, report: Report) -> None:
    folder = finished.settings.workspace / "reports"
    assert (folder / "table-1.json").read_text() == report_json(report)
    assert (folder / "table-1.csv").read_text() == report_csv(report)
    written = json.loads(report_json(report))
    assert {(c["model"], c["image_set"]): c["dataset_miou"]["value"] for c in written["cells"]} == {
        (c.model, c.image_set): c.figures.dataset_miou.value for c in report.cells
    }
    assert list(written["cells"][0]["per_class"]) == list(report.classes)
    assert [one["minus"] for one in written["leads"]] == [one.other for one in report.leads]
    assert report.missing == ()


def test_names_with_brackets_are_no_styles_of_the_terminal(report: Report) -> None:
    cells = tuple(replace(c, model="[red]shifted") if c.model == "shifted" else c for c in report.cells)
    bracketed = replace(report, cells=cells, classes=("[bold]sky", *report.classes[1:]))
    assert "[red]shifted" in printed(table_1(bracketed))
    assert all(n in printed(class_table(bracketed, "T(1)")) for n in ("[bold]sky", "[red]shifted"))


def test_the_csv_has_a_row_for_every_model_set_figure_and_class(report: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(report_csv(report))))
    assert tuple(rows[0]) == COLUMNS
    figures = 3 + len(report.classes)
    assert len(rows) == len(report.cells) * figures + len(report.changes) + len(report.leads)
    assert len({tuple(row[c] for c in COLUMNS[:5]) for row in rows}) == len(rows)
    assert all((row["class"] != "") == (row["figure"] == "iou") for row in rows)
    assert all(row["value"] == "" or float(row["low"]) <= float(row["high"]) for row in rows)
    (lead,) = [
        r for r in rows if (r["model"], r["minus"], r["image_set"]) == ("scenes@2", *best_on_t2(report))
    ]
    assert float(lead["value"]) == report.leads[-1].estimate.value


def test_sets_too_small_for_intervals_are_named(report: Report) -> None:
    text = "\n".join(notes(report))
    assert all(
        f"{s} has 4 images, too few for its intervals to say anything: 6 are needed" in text for s in SETS
    )


def test_the_page_shows_every_number_and_escapes_every_name(report: Report) -> None:
    evil = '<img src=http://192.0.2.1/x>&"'
    renamed = replace(
        report,
        classes=(evil, *report.classes[1:]),
        cells=tuple(replace(c, model=evil) if c.model == "shifted" else c for c in report.cells),
        leads=tuple(replace(one, other=evil) for one in report.leads),
    )
    text = report_page(renamed, [evil])
    assert "<img" not in text
    assert text.count("&lt;img src=http://192.0.2.1/x&gt;&amp;") > 9
    assert "<script" not in text
    assert "url(http" not in text
    assert text.count("<svg") == 3
    for cell in report.cells:
        assert f"{cell.figures.dataset_miou.value:.4f} [" in text


def test_a_report_of_nothing_says_so_in_every_format(make_project: MakeProject) -> None:
    report = build_report(make_project())
    assert report.cells == ()
    assert "shifted on T(0)" in report.missing
    assert "nothing was measured yet" in report_page(report, [])
    assert report_csv(report) == ",".join(COLUMNS) + "\n"
    assert json.loads(report_json(report))["cells"] == []
    assert "Table 1" in printed(table_1(report))


def test_a_report_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"absent/table\.html cannot be written: No such file or directory"
    ):
        write_text(tmp_path / "absent" / "table.html", "")


def test_the_last_decision_is_told_as_it_was_stored_and_written_with_all_its_figures(
    finished: Project,
) -> None:
    outcome = finished.store.rounds.get(2).outcome or ""
    lines = last_decision(finished)
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
    assert list(notes(report))[-1].endswith("scenes@1 on T(1), scenes@2 on T(1)")


def test_building_it_again_gives_the_same_report(finished: Project, report: Report) -> None:
    assert build_report(finished) == report


@pytest.mark.parametrize("form", ["text", "html", "csv", "json"])
def test_the_command_writes_each_format_to_the_terminal_and_to_a_file(
    finished: Project, tmp_path: Path, form: str
) -> None:
    out = tmp_path / ("table" if form == "text" else f"table.{form}")
    command = ["report", "--config", str(finished.config)]
    told = CliRunner().invoke(app, [*command, "--out", str(out), "--classes"])
    assert told.output == f"written: {out}\n"
    asked = CliRunner().invoke(app, [*command, "--format", form, "--classes"], env={"COLUMNS": "200"})
    assert asked.exit_code == 0, asked.output
    assert out.read_text() == asked.output
    if form == "text":
        assert "IoU of every class on T(2)" in asked.output
    else:  # as the last round left it
        assert asked.output == (finished.settings.workspace / "reports" / f"table-1.{form}").read_text()
