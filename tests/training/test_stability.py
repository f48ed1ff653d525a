"""`mad stability`: how many images of T the ranking of the models needs."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mad_backend.core.stability import StabilityPoint, stability_curve
from mad_backend.errors import SettingsError, StoreError
from tests.training.conftest import MakeProject
from training.cli import app
from training.evaluate import read_matrices
from training.project import Project
from training.stability import Stability, build_stability, stability_page

MODELS = ("confused", "shifted", "scenes@0", "scenes@1", "scenes@2")


def curve(*values: float) -> Stability:
    points = tuple(StabilityPoint(20 + k, value, value, value) for k, value in enumerate(values))
    return Stability("T(1)", ("a", "b"), points)


def test_every_test_set_has_a_curve_and_all_together_one_in_the_order_drawn(finished: Project) -> None:
    found = build_stability(finished)
    rows = {(r.model, r.image_set): read_matrices(r) for r in finished.store.versions.evaluations()}
    assert [one.image_set for one in found] == ["T(1)", "T(2)", "T(1)..T(2)"]
    assert all(one.models == MODELS for one in found)
    together = {m: np.concatenate([rows[m, "T(1)"], rows[m, "T(2)"]]) for m in MODELS}
    assert found[2].points == stability_curve(together)
    assert found[0].points == stability_curve({m: rows[m, "T(1)"] for m in MODELS})


def test_a_ranking_has_settled_only_where_it_stays_to_the_end() -> None:
    assert curve(1, 1, 1, 1, 1, 1, 0.5, 1, 1, 1, 1, 1).settled == 27
    assert curve(0.5, 1, 1, 1, 1, 1).settled == 21
    assert curve(0.5, 1, 1, 1, 1, 1).line.endswith("stays as it is from 21 images on (SRCC 0.95 or more)")
    assert curve(1, 1, 1, 1, 1).line.endswith(
        "from 20 images on (SRCC 0.95 or more); fewer were not looked at"
    )
    assert curve(1, 1, 0.5, 1, 1, 1, 1).settled is None
    assert curve(1, 1, 1, 1).settled is None
    assert "does not settle" in curve(1, 1, 1, float("nan"), 1).line


def test_the_command_prints_a_table_json_and_files(finished: Project, tmp_path: Path) -> None:
    config, page, plot = str(finished.config), tmp_path / "stability.html", tmp_path / "stability.svg"
    told = CliRunner().invoke(
        app, ["stability", "--config", config, "--out", str(page)], env={"COLUMNS": "200"}
    )
    assert told.exit_code == 0, told.output
    assert "T(1)..T(2)" in told.output
    assert f"written: {page}" in told.output
    assert page.read_text() == stability_page(build_stability(finished))
    asked = CliRunner().invoke(app, ["stability", "--config", config, "--json", "--out", str(plot)])
    fields = json.loads(asked.output)
    assert [one["image_set"] for one in fields] == ["T(1)", "T(2)", "T(1)..T(2)"]
    assert [p["images"] for p in fields[0]["points"]] == [2, 3, 4]
    assert plot.read_text().startswith("<svg")


def test_what_cannot_be_told_or_written_is_an_error(make_project: MakeProject) -> None:
    config = str(make_project().config)
    other = CliRunner().invoke(app, ["stability", "--config", config, "--out", "stability.pdf"])
    with pytest.raises(SettingsError, match=r"stability\.pdf: wanted a name that ends in \.html or \.svg"):
        raise other.exception or AssertionError(other.output)
    early = CliRunner().invoke(app, ["stability", "--config", config])
    with pytest.raises(StoreError, match="no T is there on which two models or more were measured"):
        raise early.exception or AssertionError(early.output)
