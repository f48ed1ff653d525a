"""`mad connect` and the doctor's look at connected projects, with a real Label Studio and a running `mad serve`."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from rich.console import Console
from typer.testing import CliRunner

import tests.sync.clinic
from mad_backend.core.records import ProjectRole, RemoteProject
from mad_backend.errors import LabelFormatError, PoolError, SettingsError
from mad_backend.label_studio.label_config import check_config, segmentation_config, signature
from mad_backend.label_studio.webhook import SECRET_HEADER
from mad_backend.settings_file import load_label_set
from sync.client import LabelStudioClient
from sync.connect_project import Connection, connect_project, disconnect_project, show_connection
from sync.doctor.findings import Verdict
from sync.ml_backends import (
    TITLE,
    BackendError,
    Trouble,
    backends,
    delete_backend,
    served_at,
    stored_predictions,
)
from sync.webhooks import webhook_address, webhooks
from tests.conftest import RunningLabelStudio
from tests.sync.clinic import LABEL_SET, SECRET, Clinic, free_port, serving
from training.cli import app

LABELS = load_label_set(LABEL_SET)
CONFIG = segmentation_config(LABELS)
CHOICES = (
    '<View><Image name="i" value="$image"/><Choices name="c" toName="i"><Choice value="a"/></Choices></View>'
)
PASSWORD = "p4ss: wörd"
there = tests.sync.clinic.there


@pytest.fixture
def address(there: Clinic) -> Iterator[str]:
    with serving(there) as url:
        yield url


class Projects:
    """Makes projects, and deletes them at the end."""

    def __init__(self, client: LabelStudioClient) -> None:
        self.client = client
        self.made: list[int] = []

    def make(self, config: str = CONFIG, versions: tuple[str, ...] = (), **settings: Any) -> int:
        """With a task, and an empty prediction of it for each of `versions`."""
        made = self.client.create_project(title="connected", label_config=config, **settings)
        self.made.append(made.project_id)
        predictions = [{"model_version": v, "result": []} for v in versions]
        data = {"image": "/x", "overlay": "/y", "legend": "", "item": "i"}
        self.client.import_tasks(made.project_id, [{"data": data, "predictions": predictions}])
        return made.project_id

    def read(self, project_id: int) -> tuple[str, bool]:
        """`model_version` and `show_collab_predictions`."""
        found = self.client.get(f"/api/projects/{project_id}/", "reading")
        return found["model_version"] or "", found["show_collab_predictions"]


@pytest.fixture
def projects(label_studio: RunningLabelStudio) -> Iterator[Projects]:
    made = Projects(label_studio.admin)
    yield made
    for project_id in made.made:
        label_studio.admin.delete_project(project_id)


def connect(
    there: Clinic, projects: Projects, project_id: int, url: str, title: str = TITLE, **options: Any
) -> Connection:
    served = served_at(there.settings, there.secrets, url)
    return connect_project(
        projects.client,
        there.store,
        there.settings,
        there.secrets,
        LABELS,
        project_id,
        served,
        title,
        **options,
    )


def test_connecting_twice_makes_one_live_backend_with_one_webhook_of_our_secret(
    there: Clinic, projects: Projects, address: str
) -> None:
    number = projects.make()
    first = connect(there, projects, number, address)
    assert first.is_live
    assert (first.backend.state, first.backend.model_version) == ("CO", "scenes@0")
    assert projects.read(number) == (TITLE, True)
    again = connect(there, projects, number, f"{address}/", is_interactive=True)
    assert again.backend.backend_id == first.backend.backend_id
    assert again.backend.is_interactive
    renamed = connect(there, projects, number, address, "Scenes")
    assert [b.title for b in backends(projects.client, number)] == [renamed.backend.title] == ["Scenes"]
    assert projects.read(number) == ("Scenes", True)
    (hook,) = webhooks(projects.client, number)
    assert (hook["url"], hook["headers"]) == (webhook_address(address), {SECRET_HEADER: SECRET})
    assert not hook["send_payload"]


def test_twins_of_one_address_become_one(there: Clinic, projects: Projects, address: str) -> None:
    number = projects.make()
    for title in ("one", "two"):
        body = {"url": address, "project": number, "title": title}
        projects.client.send("POST", "/api/ml/", "connecting by hand", body)
    connect(there, projects, number, address)
    assert [b.title for b in backends(projects.client, number)] == [TITLE]
    assert projects.read(number) == (TITLE, True)


def test_a_project_that_starts_from_something_else_is_changed_only_if_somebody_says_so(
    there: Clinic, projects: Projects, address: str
) -> None:
    number = projects.make(versions=("f7",))
    with pytest.raises(SettingsError, match=r'start from its predictions of "f7"; .* --replace .* --keep'):
        connect(there, projects, number, address)
    assert not backends(projects.client, number)
    kept = connect(there, projects, number, address, is_interactive=True, replace=False)
    assert not kept.is_live
    assert projects.read(number) == ("f7", True)
    assert connect(there, projects, number, address, replace=True).is_live
    assert projects.read(number) == (TITLE, True)
    off = projects.make(show_collab_predictions=False)
    with pytest.raises(SettingsError, match="prelabeling is switched off"):
        connect(there, projects, off, address)
    assert not connect(there, projects, off, address, replace=False).is_live
    assert projects.read(off) == ("", False)
    assert connect(there, projects, off, address, replace=True).is_live
    assert projects.read(off) == (TITLE, True)


def test_removing_leaves_no_empty_canvas_where_predictions_are_stored(
    there: Clinic, projects: Projects, address: str
) -> None:
    number = projects.make(versions=("f7",))
    connect(there, projects, number, address, replace=True)
    store, settings = there.store, there.settings
    told = disconnect_project(projects.client, store, settings, number, None, TITLE)
    assert 'start from the stored predictions of "f7" now' in told[1]
    assert projects.read(number) == ("f7", True)
    assert stored_predictions(projects.client, number) == {"f7": 1}
    assert not backends(projects.client, number) + webhooks(projects.client, number)
    (nothing,) = disconnect_project(projects.client, store, settings, number, address, TITLE)
    assert "nothing was changed" in nothing
    empty = projects.make()
    connect(there, projects, empty, address, "Scenes")
    told = disconnect_project(projects.client, store, settings, empty, address, TITLE)
    assert "empty canvas" in told[1]
    assert projects.read(empty) == ("", True)


def test_projects_that_cannot_or_shall_not_be_answered_are_refused_before_anything_is_changed(
    there: Clinic, projects: Projects, address: str
) -> None:
    number = projects.make(CHOICES)
    with pytest.raises(LabelFormatError, match=f'project {number} "connected": '):
        connect(there, projects, number, address)
    check = projects.make(check_config(LABELS))
    row = RemoteProject(ProjectRole.CHECK, check, "check", signature(check_config(LABELS)))
    there.store.remote.record_project(1, row)
    with pytest.raises(PoolError, match="check project of a round, where people judge without help"):
        connect(there, projects, check, address)
    with pytest.raises(PoolError, match="no project 1000000"):
        connect(there, projects, 10**6, address)
    second = projects.make()
    body = {"url": f"{address}/?", "project": second, "title": "theirs"}
    projects.client.send("POST", "/api/ml/", "connecting another", body)
    projects.client.patch_project(second, model_version="")
    with pytest.raises(SettingsError, match=r'has the ML backend "theirs" .* asks the first one only'):
        connect(there, projects, second, address)
    assert not connect(there, projects, second, address, replace=False).is_live
    assert not backends(projects.client, number) + backends(projects.client, check)


def test_what_label_studio_refuses_says_what_to_do(there: Clinic, projects: Projects, address: str) -> None:
    number = projects.make()
    with pytest.raises(SettingsError, match=r"set serve\.public_url, or give --url"):
        served_at(there.settings, there.secrets)
    with pytest.raises(SettingsError, match=r"wanted http://host .* got 10\.0\.0\.5"):
        served_at(there.settings, there.secrets, "ftp://10.0.0.5/x")
    with pytest.raises(SettingsError) as caught:
        served_at(there.settings, there.secrets, "http://mad:hunter2@10.0.0.5")
    assert "hunter2" not in str(caught.value)

    def refused(url: str) -> BackendError:
        with pytest.raises(BackendError) as caught:
            connect(there, projects, number, url)
        return caught.value

    down = refused(f"http://127.0.0.1:{free_port()}")
    assert down.trouble is Trouble.UNHEARD
    assert "start `mad serve`, and set serve.public_url" in str(down)
    assert refused("http://no-such-host.invalid:9090").trouble is Trouble.UNKNOWN_HOST
    assert refused(f"{projects.client.url}/user").trouble in (Trouble.UNHEARD, Trouble.STRANGE)
    assert projects.read(number)[0] == ""
    assert not webhooks(projects.client, number)


def test_a_password_is_given_to_label_studio_and_shown_to_nobody(
    there: Clinic, projects: Projects, caplog: pytest.LogCaptureFixture
) -> None:
    number = projects.make()
    locked = there.with_secrets(serve_password=SecretStr(PASSWORD))
    with serving(locked) as url:
        with pytest.raises(BackendError, match="export the same MAD_SERVE_PASSWORD"):
            connect(there, projects, number, url)
        with pytest.raises(BackendError) as caught:
            connect(locked.with_secrets(serve_password=SecretStr("wrong-0ne")), projects, number, url)
        assert caught.value.trouble is Trouble.REFUSED
        assert connect(locked, projects, number, url).backend.state == "CO"
        # A change of something else tries the whole connection out again.
        assert connect(locked, projects, number, url, is_interactive=True).backend.is_interactive
        here = locked.with_settings(serve={"public_url": url})
        for name in ("mad serve", "ML backend", "connected projects"):
            here.fine(name)
        stranger = here.with_secrets(serve_password=SecretStr("wrong-0ne"))
        assert "MAD_SERVE_PASSWORD" in stranger.wrong("mad serve").cure
        assert "MAD_SERVE_PASSWORD" in stranger.wrong("ML backend").cure
    with serving(there) as url:
        assert connect(there, projects, number, url).backend.state == "CO"
    shown = (
        caplog.text + str(caught.value) + repr(caught.value) + repr(served_at(here.settings, here.secrets))
    )
    assert PASSWORD not in shown
    assert "wrong-0ne" not in shown


def test_the_doctor_tells_what_is_wrong_with_connected_projects(
    there: Clinic, projects: Projects, address: str
) -> None:
    client = projects.client
    here = there.with_settings(serve={"public_url": address})
    assert here.ask("connected projects")["connected projects"][0].verdict is Verdict.NOT_CHECKED
    number = projects.make()
    made = connect(here, projects, number, address)
    here.fine("connected projects")
    client.patch_project(number, model_version="")
    found = here.wrong("connected projects")
    assert 'model_version is empty and not "MAD"' in found.told
    assert found.cure == f'mad connect --project {number} --title "MAD" --url {address} --replace'
    client.patch_project(number, model_version=TITLE)
    other = here.with_secrets(webhook_secret=SecretStr("another"))
    (warned,) = other.ask("connected projects")["connected projects"]
    assert (warned.verdict, "lacks our secret" in warned.told) == (Verdict.WARNING, True)
    body = {"url": f"{address}/?", "project": number, "title": "theirs"}
    client.send("POST", "/api/ml/", "connecting another", body)
    delete_backend(client, made.backend.backend_id)
    client.patch_project(number, model_version="")
    connect(here, projects, number, address, replace=False)
    client.patch_project(number, model_version=TITLE)
    assert "asks another backend" in here.wrong("connected projects").told


def test_the_doctor_tells_a_backend_that_is_down_from_another_password(
    there: Clinic, projects: Projects
) -> None:
    number = projects.make()
    with serving(there) as url:
        connect(there, projects, number, url)
    here = there.with_settings(serve={"public_url": url})
    assert "nothing answers" in here.wrong("connected projects").told
    port = int(url.rpartition(":")[2])
    locked = here.with_secrets(serve_password=SecretStr(PASSWORD))
    with serving(locked, port=port):
        assert "has no password" in locked.wrong("connected projects").told
        assert "--project" in locked.wrong("connected projects").cure
        assert "refuses our user and password" in here.wrong("connected projects").told


def test_what_is_printed_names_every_class_and_where_annotators_start(
    there: Clinic, projects: Projects, address: str
) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    config = CONFIG.replace('<Label value="void"', '<Label value="whatever"')
    number = projects.make(config)
    show_connection(connect(there, projects, number, address), LABELS, "scenes@0", "http://ls", console)
    shown = console.export_text()
    assert all(name in shown for name in LABELS.names)
    assert "never painted" in shown
    assert f"scenes@0 now; look at http://ls/projects/{number}/data?labeling=1" in shown


def test_the_command_connects_and_removes(
    there: Clinic, projects: Projects, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = projects.make()
    config = there.root / "mad.yaml"
    config.write_text(json.dumps(there.raw, default=str))
    assert there.secrets.label_studio_token
    monkeypatch.setenv("MAD_LABEL_STUDIO_TOKEN", there.secrets.label_studio_token.get_secret_value())

    def mad(*arguments: str) -> str:
        ran = CliRunner().invoke(
            app, ["connect", "--config", str(config), "--project", str(number), *arguments]
        )
        assert ran.exit_code == 0, ran.output
        return ran.output

    assert 'connected to "MAD"' in mad("--url", address)
    assert [b.title for b in backends(projects.client, number)] == [TITLE]
    assert "removed the ML backend" in mad("--remove")
    assert not backends(projects.client, number)
    assert "Example: mad connect --project 12" in CliRunner().invoke(app, ["connect", "--help"]).output
