"""A duel at a real Label Studio: a project of its own, drawn from nothing, with its result after the last map."""

import json

from typer.testing import CliRunner

from mad_backend.label_studio.answers import regions_of
from sync.client import LabelStudioClient
from tests.conftest import RunningLabelStudio
from tests.training.conftest import MakeProject
from training.cli import app
from training.duel import duel_folder, oracle_labels
from training.duel_people import ROUND, duel_store
from training.project import Project


def test_a_duel_waits_for_people_who_see_neither_model_and_then_tells_the_same_as_the_oracle(
    make_project: MakeProject, label_studio: RunningLabelStudio
) -> None:
    project = make_project(selection={"n3": 6}, test_set={"near_duplicates": None})
    admin, ann = label_studio.admin, label_studio.raters[0]

    def mad_duel(*arguments: str) -> str:
        token, url = label_studio.server.token, label_studio.server.url
        environment = {"MAD_LABEL_STUDIO_URL": url, "MAD_LABEL_STUDIO_TOKEN": token, "COLUMNS": "200"}
        command = ["duel", "shifted", "confused", "--config", str(project.config), *arguments]
        answer = CliRunner().invoke(app, command, env=environment)
        assert answer.exit_code == 0, answer.output
        return answer.stdout

    assert "0 of 3 label maps are there" in mad_duel("--budget", "3")
    (duel,) = project.store.duels.all()
    (there,) = [p for p in admin.projects_with("mad-") if p.title == "Duel shifted - confused"]
    tasks = admin.tasks(there.project_id)
    assert len(tasks) == 3
    for task in tasks:
        assert admin.get(f"/api/tasks/{task.task_id}/", "looking")["predictions"] == []

    draw(project, ann, there.project_id, tasks_left=1)
    assert json.loads(mad_duel("--json"))["labelled"] == 2
    early = json.loads(mad_duel("--close", "--json"))
    assert (early["result"]["images"], len(early["unlabelled"])) == (2, 1)

    draw(project, ann, there.project_id, tasks_left=0)
    told = mad_duel()
    assert "ann@example.com: 3 label maps" in told
    assert "shifted - confused on 3 images, label maps of people" in told
    by_people = json.loads((duel_folder(project, duel) / "duel.json").read_text())
    by_oracle = json.loads(mad_duel("--oracle", "--json"))
    assert by_people["result"] == by_oracle["result"]
    assert by_people["images"] == by_oracle["images"]
    assert len(admin.tasks(there.project_id)) == 3
    assert project.store.rounds.all() == []


def draw(project: Project, annotator: LabelStudioClient, project_id: int, tasks_left: int) -> None:
    """Draws the truth of every task but so many."""
    (duel,) = project.store.duels.all()
    truths = {item.image.image_id: item.truth for item in oracle_labels(project, duel)}
    with duel_store(project, duel) as store:
        done = len(store.remote.masks(ROUND))
        for _ in range(len(truths) - done - tasks_left):
            task = annotator.next_task(project_id)
            assert task is not None
            image_id = store.remote.image_of_item(str(task.item))
            assert image_id is not None
            regions = regions_of(truths[image_id].read(), project.labels)
            annotator.create_annotation(task.task_id, regions, lead_time=30.0)
