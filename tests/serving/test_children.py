"""Processes with one job, and what they tell."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from mad_backend.serving.children import Child, Failed, Ready
from tests.serving.idle_worker import WORK
from tests.serving.kept_targets import ROOT, until


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Child]]:
    monkeypatch.syspath_prepend(ROOT)
    with ExitStack() as started:

        def _start(job: str = "") -> Child:
            return started.enter_context(closing(Child(WORK, job, tmp_path / "folder", {})))

        yield _start


def first_message(child: Child) -> object:
    found: list[object] = []
    until(lambda: found.extend(child.messages()) or found)  # type: ignore[func-returns-value]
    return found[0]


def test_a_file_beside_the_script_does_not_stand_in_for_pythons_own(
    start: Callable[..., Child], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "re.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.syspath_prepend(tmp_path)
    assert isinstance(first_message(start()), Ready)


def test_a_child_writes_lines_as_its_parent_does(
    start: Callable[..., Child], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("<%(name)s> %(message)s"))
    monkeypatch.setattr(logging.root, "handlers", [handler])
    monkeypatch.setattr(logging.root, "level", logging.INFO)
    first_message(start())
    assert capfd.readouterr().err == "<tests.serving.idle_worker> idle\n"


def test_why_a_child_ends_is_told(start: Callable[..., Child]) -> None:
    refused = first_message(start("refuse"))
    assert refused == Failed("it is told to refuse")
    full = first_message(start("full"))
    assert isinstance(full, Failed)
    assert full.reason == "RuntimeError: DefaultCPUAllocator: can't allocate memory"
    assert full.lacks_memory
    assert "Traceback" in full.traceback
