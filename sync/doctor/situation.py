"""What checks look at: settings, connection, database, and a project that exists for their sake only."""

from functools import cached_property
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from mad_backend.core.records import ProjectRole
from mad_backend.errors import LabelStudioError
from mad_backend.label_studio.label_config import picture_config
from mad_backend.network.tls import Certificates
from mad_backend.settings import Secrets, Settings
from mad_backend.store.store import Store
from sync.client import LabelStudioClient
from sync.connection import connect
from sync.doctor.visits import Visitor
from sync.ml_backends import credentials

_NOWHERE: Final = ("0.0.0.0", "::", "")  # noqa: S104 - compared, not listened on
_DOCTOR: Final = "\ndoctor"
"""Stands for an image in keys of the doctor's own; no image's id begins with a line's end."""


class Situation:
    """Opened piece by piece as checks need it; `close` leaves nothing behind at the server."""

    def __init__(self, settings: Settings, secrets: Secrets) -> None:
        self.settings = settings
        self.secrets = secrets
        self.url = (secrets.label_studio_url or settings.label_studio.url).rstrip("/")

    @cached_property
    def visitor(self) -> Visitor:
        """Raises SettingsError for certificates that cannot be read."""
        given = self.settings.label_studio
        return Visitor(Certificates(given.ca_file, given.client_cert, given.verify))

    @cached_property
    def client(self) -> LabelStudioClient:
        """Raises SettingsError where no token is given."""
        return connect(self.settings, self.secrets)

    def client_of(self, token: SecretStr) -> LabelStudioClient:
        """Somebody else's."""
        return connect(self.settings, self.secrets.model_copy(update={"label_studio_token": token}))

    @cached_property
    def store(self) -> Store:
        """Raises StoreError."""
        return Store(self.settings.database_url)

    @cached_property
    def probe(self) -> "Probe":
        """Made when first asked for; those that an interrupted run left are deleted before."""
        return Probe.make(self.client, "mad-doctor-" + self._key(), self.settings)

    @property
    def picture_name(self) -> str:
        """The same in every run, so that never more than one lies anywhere."""
        return f"{self._key()}-z.jpg"

    @property
    def serve_url(self) -> str | None:
        """Where Label Studio should reach `mad serve`; None if only a running one knows (serve.port 0)."""
        return self.settings.serve.public_url or self.local_url

    @property
    def credentials(self) -> dict[str, str]:
        return credentials(self.settings, self.secrets)

    @property
    def local_url(self) -> str | None:
        """Where it is reached from this machine, if it runs here."""
        serve = self.settings.serve
        if serve.port == 0:
            return None
        host = "127.0.0.1" if serve.host in _NOWHERE else serve.host
        return f"http://[{host}]:{serve.port}" if ":" in host else f"http://{host}:{serve.port}"

    def close(self) -> None:
        """Deletes the probe project and closes the database; raises LabelStudioError."""
        made = vars(self)
        try:
            if "probe" in made:
                self.probe.delete()
        finally:
            if "store" in made:
                self.store.close()
            if "visitor" in made:
                self.visitor.close()

    def _key(self) -> str:
        return self.store.remote.item_key(0, ProjectRole.RATING, _DOCTOR)


def origin_of(address: str) -> str:
    """Scheme, host and port, as browsers send them in the header Origin."""
    parts = urlsplit(address)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return f"{parts.scheme}://{host}" + ("" if parts.port in (None, usual) else f":{parts.port}")


class Probe:
    """A project of the doctor's own."""

    def __init__(self, client: LabelStudioClient, project_id: int) -> None:
        self._client = client
        self.project_id = project_id

    @classmethod
    def make(cls, client: LabelStudioClient, key: str, settings: Settings) -> "Probe":
        """Raises LabelStudioError."""
        for left in client.projects_with(key):
            client.delete_project(left.project_id)
        made = client.create_project(
            title=f"{settings.label_studio.title}: mad doctor",
            description=f"Made by mad doctor, which deletes it. {key}",
            label_config=picture_config(),
            maximum_annotations=settings.rating.raters,
        )
        return cls(client, made.project_id)

    def task(self, address: str) -> int:
        """Id of a new task that shows the picture at `address`."""
        wanted = f"making a task in project {self.project_id}"
        path = f"/api/projects/{self.project_id}/import?return_task_ids=true"
        answer = self._client.send("POST", path, wanted, [{"data": {"image": address}}])
        if answer.get("task_ids"):
            return int(answer["task_ids"][0])
        return max(task.task_id for task in self._client.tasks(self.project_id))

    def read(self, task_id: int) -> dict[str, Any]:
        """A task as Label Studio's page gets it, with addresses that a browser can ask for."""
        found: dict[str, Any] = self._client.get(f"/api/tasks/{task_id}/", f"reading task {task_id}")
        return found

    def delete(self) -> None:
        """Webhooks, backends, tasks and uploads of the project go with it."""
        try:
            self._client.delete_project(self.project_id)
        except LabelStudioError as error:
            if error.status != 404:
                raise LabelStudioError(
                    f"the probe project {self.project_id} could not be deleted ({error}); the next `mad doctor` does "
                    "it, or delete it by hand",
                    error.status,
                ) from error
