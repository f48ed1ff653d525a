"""`mad scan` as a user meets it: what it prints, Ctrl-C, going on, a broken image; then M from what it left."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from typer.testing import CliRunner

from mad_backend.scan import ScanStatus
from tests.training.conftest import POOL, MakeProject
from training.cli import app
from training.project import Project
from training.scanning import describe

ROOT = Path(__file__).parents[2]


def scan(project: Project) -> str:
    answer = CliRunner().invoke(app, ["scan", "--config", str(project.config)], env={"COLUMNS": "120"})
    assert answer.exit_code == 0, answer.output
    return answer.output


def test_a_scan_tells_what_it_did_and_a_second_one_that_nothing_was_missing(
    make_project: MakeProject,
) -> None:
    project = make_project()
    first = scan(project)
    assert f"scanning {POOL} images with scenes@0 and its competitors" in first
    assert f"{POOL} images: {3 * POOL} new label maps of 3 models, {2 * POOL} new scores, in " in first
    assert f"{POOL} images: 0 new label maps" in scan(project)
    preview = CliRunner().invoke(app, ["select", "--dry-run", "--json", "--config", str(project.config)])
    assert preview.exit_code == 0, preview.output
    assert json.loads(preview.output)["selected"]


def test_an_image_that_cannot_be_read_is_named_with_the_reason(
    make_project: MakeProject, scenes: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in sorted((scenes / "pool" / "images").glob("*.jpg"))[:3]:
        (photos / path.name).symlink_to(path)
    (photos / "notes.jpg").write_text("no image")
    project = make_project(pool=[{"name": "pool", "images": str(photos)}])
    output = " ".join(scan(project).split())
    assert "1 images cannot be read and are left out: pool/notes: image" in output
    assert "is not in a format that is read" in output


def test_ctrl_c_says_that_nothing_is_lost_and_the_next_scan_goes_on(make_project: MakeProject) -> None:
    project = make_project(scan={"chunk": 1})
    command = [sys.executable, "-m", "training.cli", "scan", "--config", str(project.config)]
    target = project.target_key(project.current_target())
    maps = project.settings.workspace / "predictions" / target
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        end = time.monotonic() + 60
        while not any(p.stat().st_size for p in maps.rglob("*.pack")):
            assert time.monotonic() < end
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, output + errors
    assert "stopped; what is finished is kept, `mad scan` goes on from there" in output
    assert "Traceback" not in errors
    with project.predictions.open(target) as pack:
        kept = len(pack)
    assert 0 < kept < POOL
    assert f"{2 * POOL} new scores" in scan(project)


def test_speed_share_and_time_left_are_in_one_line() -> None:
    assert describe(ScanStatus(100, to_predict=100)) == "loading models"
    status = ScanStatus(1000, 500, 500, 1000, 400.0, began=time.perf_counter() - 500)
    assert describe(status) == "1.0 images/s, 80% of the time in the models, 8 min left"
