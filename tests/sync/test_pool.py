"""A Label Studio project as pool, on a real server; where the token goes, on stand-ins for hosts of the web."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mad_backend.errors import LabelStudioError, PoolError
from mad_backend.label_studio.label_config import image_fields, rating_config, segmentation_config
from mad_backend.pool.reader import PoolReader
from mad_backend.pool.sources import MIRROR_MANIFEST, list_images
from mad_backend.settings import Settings, SourceSettings
from mad_backend.settings_file import load_label_set
from sync.client import LabelStudioClient, Project
from sync.pool import mirror_project, refresh_mirrors
from tests.conftest import RunningLabelStudio

CONFIG = '<View><Image name="img" value="$photo"/><Text name="t" value="$note"/></View>'
LABEL_SET = Path(__file__).parents[2] / "configs" / "label_sets" / "scenes.yaml"


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def source(project_id: int, **keys: object) -> SourceSettings:
    return SourceSettings.model_validate({"name": "ls", "label_studio": {"project": project_id, **keys}})


def ids(client: LabelStudioClient, project: Project) -> list[int]:
    return [task.task_id for task in client.tasks(project.project_id)]


@pytest.fixture
def uploaded(label_studio: RunningLabelStudio) -> Iterator[tuple[Project, list[str]]]:
    """A project whose interface shows $photo, and the addresses of three pictures that the server keeps."""
    client = label_studio.admin
    holder = client.create_project(title="holder", label_config='<View><Image name="i" value="$i"/></View>')
    client.upload(holder.project_id, {f"{n}.jpg": jpeg(n) for n in range(3)})
    project = client.create_project(title="their own", label_config=CONFIG)
    yield project, [client.uploads(holder.project_id)[f"{n}.jpg"] for n in range(3)]
    client.delete_project(project.project_id)
    client.delete_project(holder.project_id)


def test_a_project_becomes_a_manifest_with_copies_of_what_the_server_keeps(
    label_studio: RunningLabelStudio, uploaded: tuple[Project, list[str]], tmp_path: Path
) -> None:
    client, (project, addresses) = label_studio.admin, uploaded
    photos = [
        addresses[0],
        client.url + addresses[1],
        "https://host/c.jpg?width=9",
        "s3://bucket/d.jpg",
        "azure-blob://box/e.jpg",
    ]
    client.import_tasks(project.project_id, [{"data": {"photo": p, "note": "n"}} for p in photos])
    wanted, seen = source(project.project_id), []
    report = mirror_project(client, wanted, tmp_path / "ls", lambda done, total: seen.append((done, total)))
    assert (report.images, report.fetched, report.left_out) == (5, 2, {})
    assert seen == [(1, 2), (2, 2)]
    rows = [json.loads(line) for line in (tmp_path / "ls" / MIRROR_MANIFEST).read_text().splitlines()]
    task_ids = ids(client, project)
    assert [row["id"] for row in rows] == [str(i) for i in task_ids]
    assert [row["image"] for row in rows[2:]] == [photos[2], photos[3], "az://box/e.jpg"]
    copies = [(tmp_path / "ls" / row["image"]).read_bytes() for row in rows[:2]]
    assert copies == [jpeg(0), jpeg(1)]
    assert rows[0]["image"].endswith(".jpg")


def test_the_mirror_is_the_pool_and_grows_and_shrinks_with_the_project(
    label_studio: RunningLabelStudio, uploaded: tuple[Project, list[str]], tmp_path: Path
) -> None:
    client, (project, addresses) = label_studio.admin, uploaded
    wanted = source(project.project_id)
    client.import_tasks(project.project_id, [{"data": {"photo": a, "note": ""}} for a in addresses[:2]])
    mirror_project(client, wanted, tmp_path / "ls")
    first, second = ids(client, project)
    before = list_images([wanted], tmp_path)
    assert {i.image_id for i in before} == {f"ls/{first}", f"ls/{second}"}
    assert PoolReader.of([wanted]).rgb(before[0]).shape == (8, 12, 3)
    assert mirror_project(client, wanted, tmp_path / "ls").fetched == 0
    assert list_images([wanted], tmp_path) == before  # etags too: nothing will be scanned again
    client.import_tasks(project.project_id, [{"data": {"photo": addresses[2], "note": ""}}])
    client.delete_task(first)
    Path(tmp_path / "ls" / ".torn.tmp").write_bytes(b"what a kill left")
    assert mirror_project(client, wanted, tmp_path / "ls").fetched == 1
    after = list_images([wanted], tmp_path)
    # As a set: images are in the order of their names, in which 100 is before 99.
    assert {i.image_id for i in after} == {f"ls/{second}", f"ls/{ids(client, project)[1]}"}
    kept = {Path(i.path).name for i in after} | {MIRROR_MANIFEST, ".lock"}
    assert {p.name for p in (tmp_path / "ls").iterdir()} == kept


def test_a_view_chooses_tasks(
    label_studio: RunningLabelStudio, uploaded: tuple[Project, list[str]], tmp_path: Path
) -> None:
    client, (project, addresses) = label_studio.admin, uploaded
    tasks = [
        {"data": {"photo": a, "note": n}} for a, n in zip(addresses, ("day", "night", "day"), strict=True)
    ]
    client.import_tasks(project.project_id, tasks)
    item = {"filter": "filter:tasks:data.note", "operator": "equal", "type": "String", "value": "night"}
    data = {"title": "night", "filters": {"conjunction": "and", "items": [item]}}
    view = client.send(
        "POST", "/api/dm/views/", "making a view", {"project": project.project_id, "data": data}
    )
    mirror_project(client, source(project.project_id, view=view["id"]), tmp_path / "ls")
    (row,) = (tmp_path / "ls" / MIRROR_MANIFEST).read_text().splitlines()
    assert json.loads(row)["id"] == str(ids(client, project)[1])
    with pytest.raises(PoolError, match=rf"no project {project.project_id}, or no view 987654 of it"):
        mirror_project(client, source(project.project_id, view=987654), tmp_path / "ls")


def test_tasks_without_an_image_are_left_out_and_counted_with_the_reason(
    label_studio: RunningLabelStudio, uploaded: tuple[Project, list[str]], tmp_path: Path
) -> None:
    client, (project, addresses) = label_studio.admin, uploaded
    photos = [addresses[0], "", "file:///etc/passwd", "data:image/png;base64,AAAA", "/data/upload/9/none.jpg"]
    client.import_tasks(project.project_id, [{"data": {"photo": p, "note": ""}} for p in photos])
    report = mirror_project(client, source(project.project_id), tmp_path / "ls")
    assert report.images == 1
    reasons = [report.left_out[i] for i in ids(client, project)[1:]]
    assert 'no address under "photo"; the task has note, photo' in reasons[0]
    assert "file:// is not read" in reasons[1]
    assert "upload it instead" in reasons[2]
    assert "downloading /data/upload/9/none.jpg" in reasons[3]


def test_what_does_not_fit_the_project_is_told(
    label_studio: RunningLabelStudio, uploaded: tuple[Project, list[str]], tmp_path: Path
) -> None:
    client, (project, addresses) = label_studio.admin, uploaded
    with pytest.raises(PoolError, match=r'source "ls": .* has no project 987654 that this token may see'):
        mirror_project(client, source(987654), tmp_path / "ls")
    with pytest.raises(PoolError, match=rf"no image in project {project.project_id}; there is no task"):
        mirror_project(client, source(project.project_id), tmp_path / "ls")
    client.import_tasks(project.project_id, [{"data": {"photo": addresses[0], "note": "n"}}])
    with pytest.raises(PoolError, match='no address under "picture"; the task has note, photo'):
        mirror_project(client, source(project.project_id, field="picture"), tmp_path / "ls")
    pairs = client.create_project(title="pairs", label_config=rating_config())
    with pytest.raises(PoolError, match=r"shows 2 images of a task \(image, overlay\); name the one"):
        mirror_project(client, source(pairs.project_id), tmp_path / "ls")
    data = {"image": addresses[0], "overlay": addresses[1], "legend": ""}
    client.import_tasks(pairs.project_id, [{"data": data}])
    assert mirror_project(client, source(pairs.project_id, field="overlay"), tmp_path / "ls").images == 1
    client.delete_project(pairs.project_id)


def test_all_label_studio_sources_of_a_project_are_refreshed(
    label_studio: RunningLabelStudio, uploaded: tuple[Project, list[str]], tmp_path: Path
) -> None:
    client, (project, addresses) = label_studio.admin, uploaded
    client.import_tasks(project.project_id, [{"data": {"photo": addresses[0], "note": ""}}])
    folder = {"name": "f", "images": tmp_path}
    model = {"kind": "folder", "path": tmp_path}
    settings = Settings.model_validate(
        {
            "workspace": tmp_path,
            "label_set": LABEL_SET,
            "pool": [folder, source(project.project_id)],
            "s0": [folder],
            "t0": [folder],
            "models": {"name": "m", "target": model, "competing": {"g": model}},
        }
    )
    (report,) = refresh_mirrors(settings, client)
    assert (report.source, report.images) == ("ls", 1)
    assert len(list_images(settings.pool[1:], settings.mirrors)) == 1
    twins = (source(project.project_id), source(project.project_id, field="photo"))
    with pytest.raises(PoolError, match="one name"):
        refresh_mirrors(settings.model_copy(update={"pool": twins}), client)


def test_image_fields_of_any_interface_are_found() -> None:
    assert image_fields(rating_config()) == ("image", "overlay")
    assert image_fields(segmentation_config(load_label_set(LABEL_SET))) == ("image",)
    assert image_fields('<View><Image value="$a"/><Image value="$a"/><Image valueList="$b"/></View>') == (
        "a",
    )


Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture
def host() -> Iterator[Callable[..., tuple[str, list[str]]]]:
    """Starts web servers on the loopback that answer by path; gives their address and what they were asked."""
    servers = []

    def _start(**answers: Answer) -> tuple[str, list[str]]:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                login = [self.headers.get(name) for name in ("Authorization", "Cookie")]
                asked.append(f"{self.path} {login}")
                status, headers, body = answers.get(self.path.strip("/"), (404, {}, b""))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Not on stderr."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}", asked

    yield _start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_token_stays_with_the_server_when_it_sends_us_to_a_store(
    host: Callable[..., tuple[str, list[str]]],
) -> None:
    store, store_asked = host(photo=(200, {}, b"abc"))
    url, asked = host(
        a=(302, {"Location": "/b"}, b""),
        b=(302, {"Location": f"{store}/photo", "Set-Cookie": "session=HUSH"}, b""),
    )
    client = LabelStudioClient(url, "a-token", backoff_s=0.01)
    assert client.download("/a", 10) == b"abc"
    assert store_asked == ["/photo [None, None]"]
    assert [a.split(",")[0] for a in asked] == ["/a ['Token a-token'", "/b ['Token a-token'"]


def test_a_store_that_is_gone_and_a_circle_are_errors(host: Callable[..., tuple[str, list[str]]]) -> None:
    url, asked = host(a=(302, {"Location": "/a"}, b""), b=(302, {"Location": "http://127.0.0.1:1/x"}, b""))
    client = LabelStudioClient(url, "a-token", backoff_s=0.01)
    with pytest.raises(LabelStudioError, match="round in circles"):
        client.download("/a", 10)
    assert len(asked) == 5
    with pytest.raises(LabelStudioError, match=r"sends us to 127\.0\.0\.1:1, which did not answer"):
        client.download("/b", 10)


def test_a_file_above_the_limit_is_not_downloaded(host: Callable[..., tuple[str, list[str]]]) -> None:
    url, asked = host(a=(200, {}, b"12345"))
    client = LabelStudioClient(url, "a-token", backoff_s=0.01)
    assert client.download("/a", 5) == b"12345"
    with pytest.raises(LabelStudioError, match="more than 4 bytes"):
        client.download("/a", 4)
    assert len(asked) == 2


@pytest.mark.parametrize("address", ["@127.0.0.1:{port}/photo", "//127.0.0.1:{port}/photo", ":{port}/photo"])
def test_a_task_cannot_lead_the_token_to_another_host(
    host: Callable[..., tuple[str, list[str]]], tmp_path: Path, address: str
) -> None:
    thief, thief_asked = host(photo=(200, {}, b"abc"))
    data = {"photo": address.format(port=thief.rpartition(":")[2])}
    tasks = json.dumps({"tasks": [{"id": 1, "data": data}], "total": 1}).encode()
    url, asked = host(
        **{"api/tasks/?project=1&include=id%2Cdata&resolve_uri=false&page=1&page_size=1000": (200, {}, tasks)}
    )
    with pytest.raises(LabelStudioError, match="not one image of project 1 can be fetched"):
        mirror_project(LabelStudioClient(url, "a-token", backoff_s=0.01), source(1, field="photo"), tmp_path)
    assert thief_asked == []
    assert len(asked) == 2
