"""The command line as a user meets it: help with an example, errors in one line, exit status 1."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mad_backend.core.rounds import RoundState
from mad_backend.errors import SettingsError
from tests.training.conftest import MakeProject
from training.cli import app
from training.project import Project
from training.start import start_round

COMMANDS = sorted(
    name
    for name, command in typer.main.get_command(app).commands.items()
    if not command.hidden  # type: ignore[attr-defined]
)


def mad(*arguments: str, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAD_")}
    return subprocess.run(
        [sys.executable, "-m", "training.cli", *arguments],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def error_line(answer: "subprocess.CompletedProcess[str]") -> str:
    """The one line on stderr that tells the error; logged lines, which start with a date, aside."""
    assert answer.returncode == 1, answer.stderr
    assert "Traceback" not in answer.stderr
    lines = [line for line in answer.stderr.splitlines() if line and not line[:4].isdigit()]
    assert len(lines) == 1, answer.stderr
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


def test_the_commands_are_those_of_the_manual() -> None:
    wanted = "cancel demo new-round pause promote report resume retry rollback scan schedule serve select "
    wanted += "status tick connect finetune verify stability costs"
    assert set(wanted.split()) <= set(COMMANDS)
    assert "step" not in COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    answer = CliRunner().invoke(app, [command, "--help"], terminal_width=200)
    assert answer.exit_code == 0
    assert f"Example: mad {command}" in answer.output


def test_without_a_command_help_is_shown() -> None:
    answer = CliRunner().invoke(app, [])
    assert "Finds the failures" in answer.output
    assert "new-round" in answer.output


def test_status_of_an_empty_store_tells_how_to_start(make_project: MakeProject) -> None:
    project = make_project()
    answer = CliRunner().invoke(app, ["status", "--config", str(project.config)])
    assert answer.exit_code == 0
    assert answer.output == "no round yet; `mad new-round` starts one\n"


def test_status_shows_rounds_and_the_served_version(finished: Project) -> None:
    answer = CliRunner().invoke(app, ["status", "--config", str(finished.config)], env={"COLUMNS": "300"})
    assert answer.exit_code == 0
    for number in (1, 2):
        outcome = finished.store.rounds.get(number).outcome
        assert outcome
        assert outcome.partition(":")[0] in answer.output
    served = finished.store.versions.promoted()
    assert served
    assert f"served target: {served.version}, promoted " in answer.output


def test_report_prints_table_1_with_every_model(finished: Project) -> None:
    answer = CliRunner().invoke(app, ["report", "--config", str(finished.config)], env={"COLUMNS": "300"})
    assert answer.exit_code == 0
    for name in ("shifted", "confused", "target scenes@0", "target scenes@1", "target scenes@2", "T(2)"):
        assert name in answer.output
    before = finished.store.rounds.get(2).target
    assert f"scenes@2 - {before} on T(0): " in answer.output
    assert f"round 2, {(finished.store.rounds.get(2).outcome or '').splitlines()[0]}\n" in answer.output


def test_promote_serves_a_version_by_hand_and_refuses_unknown_ones(make_project: MakeProject) -> None:
    project = make_project()
    start_round(project, None)
    answer = CliRunner().invoke(app, ["promote", "scenes@0", "--config", str(project.config)])
    assert answer.output == "scenes@0 is served from now on\n"
    refused = mad("promote", "scenes@7", "--config", str(project.config), cwd=project.settings.workspace)
    assert error_line(refused) == 'there is no model version "scenes@7"; known: scenes@0'


def test_rollback_serves_the_version_before_and_names_the_first_as_such(make_project: MakeProject) -> None:
    project = make_project()
    start_round(project, None)
    versions, first = project.store.versions, project.store.versions.get("scenes@0")
    versions.record("scenes@1", 1, first.path, first.created_at)
    versions.promote("scenes@1", first.created_at, "the gate")
    command = ["rollback", "--config", str(project.config)]
    answer = CliRunner().invoke(app, command)
    assert answer.output == "scenes@0 is served from now on, in the place of scenes@1\n"
    with pytest.raises(SettingsError, match="no version to go back to: scenes@0 is the first that was ever"):
        CliRunner().invoke(app, command, catch_exceptions=False)


def test_vetoes_are_listed_and_one_is_lifted_by_its_name(make_project: MakeProject) -> None:
    project = make_project()
    start_round(project, None)
    command = ["vetoes", "--config", str(project.config)]
    assert CliRunner().invoke(app, command).output == "no image was called out-of-domain\n"
    project.store.choices.record_cut(1, [], [], {"pool/kitchen-07": "ann@example.com"})
    listed = CliRunner().invoke(app, command).output
    assert all(part in listed for part in ("pool/kitchen-07", "ann@example.com"))
    assert "lifted" not in listed
    lifted = CliRunner().invoke(app, [*command, "--lift", "pool/kitchen-07"])
    assert lifted.output == "pool/kitchen-07: later rounds may choose it again\n"
    assert "lifted" in CliRunner().invoke(app, command).output
    assert not project.store.choices.spent()
    with pytest.raises(SettingsError, match='nobody vetoed "pool/kitchen-7"; `mad vetoes` lists what was'):
        CliRunner().invoke(app, [*command, "--lift", "pool/kitchen-7"], catch_exceptions=False)


def test_a_missing_settings_file_is_one_line(tmp_path: Path) -> None:
    assert error_line(mad("status", cwd=tmp_path)) == (
        "cannot read mad.yaml: No such file or directory; give a settings file with --config"
    )


def test_an_unknown_key_is_named_with_the_nearest_known_one(make_project: MakeProject) -> None:
    project = make_project()
    project.config.write_text(project.config.read_text() + "poool: 1\n")
    answer = mad("status", "--config", "mad.yaml", cwd=project.config.parent)
    assert error_line(answer).endswith('unknown key poool; did you mean "pool"?')


def test_a_missing_token_says_where_to_find_one(make_project: MakeProject) -> None:
    project = make_project()
    answer = mad("tick", "--config", "mad.yaml", cwd=project.config.parent)
    assert "set MAD_LABEL_STUDIO_TOKEN" in error_line(answer)


def test_a_server_that_is_away_is_one_line(make_project: MakeProject) -> None:
    project = make_project()
    answer = mad(
        "new-round",
        "--config",
        "mad.yaml",
        cwd=project.config.parent,
        MAD_LABEL_STUDIO_URL="http://127.0.0.1:1",
        MAD_LABEL_STUDIO_TOKEN="secret-token-0123",
    )
    assert "127.0.0.1:1" in error_line(answer)
    assert "secret-token" not in answer.stderr + answer.stdout


def test_a_round_that_is_not_there_is_one_line(make_project: MakeProject) -> None:
    project = make_project()
    assert error_line(mad("pause", cwd=project.config.parent)) == (
        "there is no round yet; start one with `mad new-round`"
    )
    assert error_line(mad("pause", "4", cwd=project.config.parent)) == (
        "there is no round 4; `mad status` lists the rounds"
    )


def test_moves_that_the_state_does_not_have_are_refused(make_project: MakeProject) -> None:
    project = make_project()
    start_round(project, None)
    config = ["--config", str(project.config)]
    for command, message in (
        ("resume", "round 1 is created, not paused"),
        ("retry", "round 1 is created, not failed"),
    ):
        refused = CliRunner().invoke(app, [command, *config])
        assert str(refused.exception) == message
    assert CliRunner().invoke(app, ["cancel", *config]).exit_code == 0
    again = CliRunner().invoke(app, ["cancel", *config])
    assert "none: it is over" in str(again.exception)
    assert project.store.rounds.get(1).state is RoundState.CANCELLED


def test_an_unknown_experiment_is_one_line(tmp_path: Path) -> None:
    answer = mad("simulate", "--experiment", "z", "--data", ".", cwd=tmp_path)
    assert error_line(answer) == 'there is no experiment "z"; wanted one of a, b, c, d'
