"""The calls we make to Label Studio, as typed methods.

Plain `requests` and not `label_studio_sdk`: there are some twenty calls, and importing the SDK takes 6 s and
brings pandas, opencv, nltk and fifty packages more. All shapes and limits were measured on Label Studio
1.23.2; those of Enterprise are as documented.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from mad_backend.errors import LabelStudioError
from mad_backend.network.tls import Certificates
from sync.imports import finished
from sync.pages import entries
from sync.shapes import (
    Annotation,
    Json,
    Person,
    Project,
    TaskState,
    read_annotation,
    read_person,
    read_project,
    read_task,
)
from sync.transport import Transport

__all__ = ["Annotation", "Json", "LabelStudioClient", "Person", "Project", "TaskState"]

_PAGE: Final = 1000
_QUEUE_PATIENCE: Final = 5
"""Times the timeout: how long an import may stand still in the server's queue."""
FILES_PER_REQUEST: Final = 100
"""One more and the server answers 500 (LABEL_STUDIO_DATA_UPLOAD_MAX_NUMBER_FILES)."""


class LabelStudioClient:
    """One server, one token; `token` may be a legacy or a personal access token and is never shown.

    Every method raises LabelStudioError. Reads are tried again with growing pauses, starting at `backoff_s`;
    writes are not, since a write that timed out may have succeeded.
    """

    def __init__(
        self,
        url: str,
        token: str,
        timeout_s: float = 120.0,
        backoff_s: float = 0.5,
        certificates: Certificates | None = None,
    ) -> None:
        self._http = Transport(url, token, timeout_s, backoff_s, certificates or Certificates())
        self._timeout_s = timeout_s
        self.url = self._http.url
        self.path = self._http.path
        self.backoff_s = backoff_s

    def __repr__(self) -> str:
        return f"LabelStudioClient({self.url!r})"

    def version(self) -> str:
        """Release of the server, e.g. "1.23.2"."""
        return str(self.get("/api/version", "asking for the version")["release"])

    def current_user(self) -> Person:
        """Whose token this is."""
        return read_person(self.get("/api/current-user/whoami", "checking the token"))

    def people(self) -> dict[int, str]:
        """User id -> email."""
        return {u["id"]: u["email"] for u in self.get("/api/users/", "listing the users")}

    def submit_with_enter(self) -> None:
        """Lets Enter submit, for the user whose token this is; the section name stands twice on purpose."""
        path = "/api/current-user/hotkeys/"
        # What is sent replaces all keys of the user's own, so they are sent along.
        own = self.get(path, "reading the keys").get("custom_hotkeys") or {}
        keys = {**own, "annotation:annotation:submit": {"key": "enter", "active": True}}
        self.send("PATCH", path, "setting the Enter key", {"custom_hotkeys": keys})

    def create_project(self, **settings: Any) -> Project:
        """`settings` are Label Studio's own names: title (3 to 50 letters), label_config, sampling, ..."""
        wanted = f'creating project "{settings.get("title")}"'
        return read_project(self.send("POST", "/api/projects/", wanted, settings))

    def patch_project(self, project_id: int, **settings: Any) -> Project:
        return read_project(
            self.send("PATCH", f"/api/projects/{project_id}/", f"changing project {project_id}", settings)
        )

    def project(self, project_id: int) -> Project | None:
        """None if there is no such project (any more)."""
        try:
            return read_project(self.get(f"/api/projects/{project_id}/", f"reading project {project_id}"))
        except LabelStudioError as error:
            if error.status == 404:
                return None
            raise

    def projects_with(self, key: str) -> list[Project]:
        """Projects with `key` in their description, oldest first."""
        fields = "id,title,description,label_config,model_version"
        pages = self.pages("/api/projects/", "listing the projects", {"include": fields}, "results")
        found = [read_project(p) for p in pages if key in (p.get("description") or "")]
        return sorted(found, key=lambda p: p.project_id)

    def delete_project(self, project_id: int) -> None:
        self.send("DELETE", f"/api/projects/{project_id}/", f"deleting project {project_id}")

    def import_tasks(self, project_id: int, tasks: Sequence[Json]) -> int:
        """Adds tasks (`{"data": ..., "predictions": [...]}`) and says how many; sending twice adds twice."""
        wanted = f"importing {len(tasks)} tasks into project {project_id}"
        answer = self.send("POST", f"/api/projects/{project_id}/import", wanted, list(tasks))
        return int(self._finished(project_id, answer, wanted).get("task_count", 0))

    def tasks(self, project_id: int, changed_since: datetime | None = None) -> list[TaskState]:
        """All tasks by id, or those whose answers (or skips) changed later than `changed_since`.

        Raises LabelStudioError with status 404 if there is no such project.
        """
        params: Json = {"project": project_id, "include": "id,data,updated_at,total_annotations"}
        if changed_since is not None:
            item = {"filter": "filter:tasks:updated_at", "operator": "greater", "type": "Datetime"}
            item["value"] = changed_since.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            params["query"] = json.dumps({"filters": {"conjunction": "and", "items": [item]}})
        pages = self.pages("/api/tasks/", f"listing the tasks of project {project_id}", params, "tasks")
        return sorted((read_task(t) for t in pages), key=lambda t: t.task_id)

    def task_data(self, project_id: int, view: int | None = None) -> Iterator[tuple[int, Json]]:
        """(id, data) of every task, or of the tasks that a view (tab) shows; addresses as they were imported.

        Raises LabelStudioError with status 404 if there is no such project or view.
        """
        params: Json = {"project": project_id, "include": "id,data", "resolve_uri": "false"}
        wanted = f"listing the tasks of project {project_id}"
        if view is not None:
            params["view"] = view
            wanted += f", view {view}"
        return ((t["id"], t["data"]) for t in self.pages("/api/tasks/", wanted, params, "tasks"))

    def download(self, path: str, limit: int) -> bytes:
        """The bytes of a file that the server gives, e.g. /data/upload/1/cat.jpg, as tasks have it."""
        return self._http.download(path, f"downloading {path.partition('?')[0]}", limit)

    def has_file(self, address: str) -> bool:
        """True if the server still gives an uploaded file; it is not read."""
        return self._http.exists(address, f"looking for {address.partition('?')[0]}")

    def sent_on(self, address: str) -> str | None:
        """Where the server sends a browser that asks for a picture; None: it gives the picture itself."""
        return self._http.sent_on(address, f"asking for {address.partition('?')[0]}")

    def delete_task(self, task_id: int) -> None:
        self.send("DELETE", f"/api/tasks/{task_id}/", f"deleting task {task_id}")

    def next_task(self, project_id: int) -> TaskState | None:
        """What the label stream gives this user next, or None when there is nothing left for them."""
        try:
            return read_task(
                self.get(f"/api/projects/{project_id}/next", f"asking project {project_id} for a task")
            )
        except LabelStudioError as error:
            if error.status == 404:
                return None
            raise

    def annotations(self, task_id: int) -> list[Annotation]:
        """Everybody's annotations of one task, without those that were skipped; empty if the task is gone."""
        try:
            found = self.get(
                f"/api/tasks/{task_id}/annotations/", f"reading the annotations of task {task_id}"
            )
        except LabelStudioError as error:
            if error.status == 404:
                return []
            raise
        return [read_annotation(a, task_id) for a in found]

    def export(self, project_id: int) -> list[Annotation]:
        """Every annotation of a project in one call, cancelled ones too."""
        found = self.get(
            f"/api/projects/{project_id}/export",
            f"exporting project {project_id}",
            {"exportType": "JSON", "download_all_tasks": "false"},
        )
        return [read_annotation(a, task["id"]) for task in found for a in task["annotations"]]

    def create_annotation(
        self, task_id: int, result: Sequence[Mapping[str, Any]], **fields: Any
    ) -> Annotation:
        """As the user whose token this is; `fields`: was_cancelled, lead_time, parent_prediction, ..."""
        body = {"result": list(result), **fields}
        wanted = f"annotating task {task_id}"
        return read_annotation(self.send("POST", f"/api/tasks/{task_id}/annotations/", wanted, body), task_id)

    def update_annotation(self, annotation_id: int, result: Sequence[Mapping[str, Any]]) -> Annotation:
        wanted = f"changing annotation {annotation_id}"
        answer = self.send("PATCH", f"/api/annotations/{annotation_id}/", wanted, {"result": list(result)})
        return read_annotation(answer, answer["task"])

    def delete_annotation(self, annotation_id: int) -> None:
        self.send("DELETE", f"/api/annotations/{annotation_id}/", f"deleting annotation {annotation_id}")

    def upload(self, project_id: int, files: Mapping[str, bytes]) -> dict[str, str]:
        """Stores JPEG files, name -> content, and returns name -> address; sent twice, a file is stored twice."""
        names, addresses = list(files), dict[str, str]()
        for start in range(0, len(names), FILES_PER_REQUEST):
            part = names[start : start + FILES_PER_REQUEST]
            wanted = f"uploading {len(part)} files to project {project_id}"
            answer = self._http.call(
                "POST",
                f"/api/projects/{project_id}/import",
                wanted,
                params={"commit_to_project": "false"},
                files=[(f"file{n}", (name, files[name], "image/jpeg")) for n, name in enumerate(part)],
            )
            ids = self._finished(project_id, answer, wanted).get("file_upload_ids") or []
            found = self._uploads(project_id, {"ids": json.dumps(ids)})
            if not found.keys() >= set(part):
                found = self.uploads(project_id)
            addresses |= {name: found[name] for name in part if name in found}
        if missing := [name for name in names if name not in addresses]:
            raise LabelStudioError(f"project {project_id}: {missing[0]} was uploaded and is not there")
        return addresses

    def uploads(self, project_id: int) -> dict[str, str]:
        """Name -> address (`/data/upload/...`) of every file this user uploaded; of equal names the first.

        Raises LabelStudioError with status 404 if there is no such project.
        """
        return self._uploads(project_id, {"all": "true"})

    def get(self, path: str, wanted: str, params: Mapping[str, Any] | None = None) -> Any:
        """Decoded JSON; `wanted` says in errors what the call was for."""
        return self._http.call("GET", path, wanted, params=params)

    def send(self, method: str, path: str, wanted: str, body: object = None) -> Any:
        """As `get`, for POST, PATCH, PUT and DELETE; never tried again."""
        return self._http.call(method, path, wanted, json=body)

    def pages(self, path: str, wanted: str, params: Mapping[str, Any], key: str) -> Iterator[Json]:
        """The entries under `key` of every page, each of them with an id."""
        return entries(lambda page: self.get(path, wanted, {**params, "page": page, "page_size": _PAGE}), key)

    def _uploads(self, project_id: int, params: Mapping[str, Any]) -> dict[str, str]:
        wanted = f"listing the files of project {project_id}"
        found = self.get(f"/api/projects/{project_id}/file-uploads", wanted, params)
        addresses: dict[str, str] = {}
        for entry in sorted(found, key=lambda e: int(e["id"])):
            # The server puts 8 random hex digits and a dash before our name.
            name = entry["file"].rsplit("/", 1)[-1].partition("-")[2]
            addresses.setdefault(name, f"{self._http.path}/data/{entry['file']}")
        return addresses

    def _finished(self, project_id: int, answer: Any, wanted: str) -> Json:
        return finished(
            self.get,
            project_id,
            answer,
            wanted,
            pause_s=self.backoff_s,
            patience_s=_QUEUE_PATIENCE * self._timeout_s,
        )
