"""Rating projects without pictures, which are made in an instant, and people who answer in them."""

from collections.abc import Mapping, Sequence
from typing import Any

from mad_backend.core.records import ProjectRole, RemoteProject
from mad_backend.label_studio.label_config import rating_config, signature
from mad_backend.store.store import Store
from sync.client import LabelStudioClient
from tests.conftest import RunningLabelStudio


class CountingClient(LabelStudioClient):
    """Remembers what it read."""

    def __init__(self, running: RunningLabelStudio) -> None:
        super().__init__(running.server.url, running.server.token)
        self.asked: list[str] = []

    def get(self, path: str, wanted: str, params: Mapping[str, Any] | None = None) -> Any:
        self.asked.append(path)
        return super().get(path, wanted, params)


def answer(grade: str) -> list[dict[str, Any]]:
    value = {"choices": [grade]}
    return [{"from_name": "quality", "to_name": "overlay", "type": "choices", "value": value}]


def rate_all(client: LabelStudioClient, project_id: int, grade: str) -> list[int]:
    """Rates what the label stream gives, until it gives nothing; ids of the tasks."""
    rated = []
    while task := client.next_task(project_id):
        client.create_annotation(task.task_id, answer(grade), lead_time=2.5)
        rated.append(task.task_id)
    return rated


def make_project(
    running: RunningLabelStudio,
    store: Store,
    count: int,
    raters: int = 3,
    seat: str = "",
    annotations: Sequence[Mapping[str, Any]] = (),
) -> dict[str, int]:
    """A recorded rating project of round 1; image id -> task id. Every task begins with `annotations`."""
    admin, role = running.admin, ProjectRole.RATING
    config = rating_config()
    made = admin.create_project(
        title="Round 1", label_config=config, maximum_annotations=raters, sampling="Uniform sampling"
    )
    store.remote.record_project(1, RemoteProject(role, made.project_id, made.title, signature(config), seat))
    keys = {store.remote.item_key(1, role, f"img-{n:03d}", seat): f"img-{n:03d}" for n in range(count)}
    tasks = [
        {
            "data": {"image": "/x", "overlay": "/x", "legend": "", "item": key},
            "annotations": list(annotations),
        }
        for key in keys
    ]
    admin.import_tasks(made.project_id, tasks)
    there = {keys[str(t.item)]: t.task_id for t in admin.tasks(made.project_id)}
    store.remote.record_tasks(1, role, there, seat)
    return there


def project_id(store: Store, seat: str = "") -> int:
    project = store.remote.project(1, ProjectRole.RATING, seat)
    assert project
    return project.project_id
