"""What ops see of disputes, and how they end them."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mad_backend.core.records import Check, ErrorType, Failure, HumanMask, ProjectRole, RemoteProject, Verdict
from mad_backend.core.rounds import NEXT, RoundState
from mad_backend.errors import StoreError
from mad_backend.store.store import Store
from sync.check_project import check_id
from sync.cli import app
from sync.disagreements import disagreements, settle

NOW = datetime(2026, 1, 2, tzinfo=UTC)
URL = "http://ls.example"
IMAGES = ("fine", "mended", "refused", "redrawn", "unseen", "gone")


def mask(image_id: str, sha256: str = "aa") -> HumanMask:
    return HumanMask(image_id, f"{image_id}.png", sha256, "ann@x", 1)


def check(image_id: str, verdict: Verdict, sha256: str = "aa", path: str | None = None) -> Check:
    return Check(image_id, sha256, verdict, "bob@x", NOW, annotation_id=5, path=path, sha256=path and "cc")


@pytest.fixture
def disputed(store: Store) -> Store:
    """Round 1 while checking: S is all of `IMAGES` but one, which is T."""
    state = RoundState.CREATED
    while state is not RoundState.CHECKING:
        store.rounds.advance(1, state, NEXT[state], NOW)
        state = NEXT[state]
    store.choices.record_cut(1, [Failure(i, 1.0) for i in IMAGES[1:]], IMAGES[:1], {})
    for n, role in enumerate((ProjectRole.SEGMENTATION, ProjectRole.CHECK)):
        store.remote.record_project(1, RemoteProject(role, 7 + n, "Title", "signature"))
    masks = [mask(i, "new" if i == "redrawn" else "aa") for i in IMAGES[:-1]]
    for one in masks:
        store.remote.record_mask(1, one)
    store.remote.record_tasks(1, ProjectRole.SEGMENTATION, {i: 10 + n for n, i in enumerate(IMAGES)})
    store.remote.record_tasks(1, ProjectRole.CHECK, {check_id(m): 20 + n for n, m in enumerate(masks)})
    store.checks.record(1, check("fine", Verdict.ACCEPTED))
    mended = check("mended", Verdict.CORRECTED, path="mended-2.png")
    store.checks.record(1, replace(mended, errors=(ErrorType.VOID,), changed_share=0.125, notes=("odd",)))
    store.checks.record(1, check("refused", Verdict.REJECTED))
    store.checks.record(1, check("redrawn", Verdict.REJECTED))
    return store


def test_disagreements_are_listed_open_ones_first_with_both_tasks(disputed: Store) -> None:
    refused, mended, redrawn = disagreements(disputed, 1, URL)
    assert (refused.image_id, refused.is_open, refused.outcome) == (
        "refused",
        True,
        "open: the author draws again, or `mad settle`",
    )
    assert (mended.image_id, mended.is_open, mended.outcome) == (
        "mended",
        False,
        "the checker's label map counts",
    )
    assert (mended.errors, mended.changed_share, mended.notes) == (("void",), 0.125, ("odd",))
    assert (mended.author, mended.checker) == ("ann@x", "bob@x")
    assert mended.drawing == f"{URL}/projects/7/data?task=11"
    assert mended.checking == f"{URL}/projects/8/data?task=21"
    assert (redrawn.image_id, redrawn.is_open, redrawn.outcome) == ("redrawn", False, "drawn anew since")
    assert redrawn.checking is None


def test_author_checker_or_nobody_is_taken(disputed: Store) -> None:
    settle(disputed, 1, "refused", "author", NOW)
    settle(disputed, 1, "mended", "author", NOW)
    assert {i: m.path for i, m in disputed.final_masks(1).items()} == {i: f"{i}.png" for i in IMAGES[:-1]}
    settle(disputed, 1, "mended", "checker", NOW)
    settle(disputed, 1, "redrawn", "drop", NOW)
    final = disputed.final_masks(1)
    assert final["mended"].path == "mended-2.png"
    assert "redrawn" not in final
    outcomes = {
        d.image_id: (d.outcome, d.notes) for d in disagreements(disputed, 1, URL) if d.verdict.is_settled
    }
    assert outcomes == {
        "refused": ("settled: the author's label map counts", ("settled when it was rejected",)),
        "mended": (
            "settled: the checker's label map counts",
            ("odd", "settled when it was corrected", "settled when it was author"),
        ),
        "redrawn": ("settled: the image is dropped", ("settled when it was not checked",)),
    }
    assert disputed.remote.take_pull_wish(), "the scheduler looks at once"


def test_settling_twice_changes_nothing_and_a_drop_can_be_taken_back(disputed: Store) -> None:
    first = settle(disputed, 1, "unseen", "drop", NOW)
    assert settle(disputed, 1, "unseen", "drop", NOW) == first
    assert "unseen" not in disputed.final_masks(1)
    settle(disputed, 1, "unseen", "author", NOW)
    assert disputed.final_masks(1)["unseen"].path == "unseen.png"


def test_an_image_whose_label_map_is_gone_can_only_be_dropped(disputed: Store) -> None:
    with pytest.raises(StoreError, match='image "gone" has no label map; it can only be dropped'):
        settle(disputed, 1, "gone", "author", NOW)
    assert settle(disputed, 1, "gone", "drop", NOW).verdict is Verdict.DROPPED


@pytest.mark.parametrize(
    ("image_id", "take", "message"),
    [
        ("refused", "checker", 'nobody changed the label map of "refused"'),
        ("unseen", "checker", 'nobody changed the label map of "unseen"'),
        ("stranger", "author", 'image "stranger" is neither in S nor in T of round 1'),
        ("refused", "ann", '"ann" cannot be taken; wanted one of author, checker, drop'),
    ],
)
def test_what_cannot_be_settled_is_refused(disputed: Store, image_id: str, take: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        settle(disputed, 1, image_id, take, NOW)


def test_after_the_check_nothing_is_settled_any_more_but_while_it_is_paused(disputed: Store) -> None:
    disputed.rounds.advance(1, RoundState.CHECKING, RoundState.PAUSED, NOW)
    settle(disputed, 1, "refused", "author", NOW)
    disputed.rounds.advance(1, RoundState.PAUSED, RoundState.CHECKING, NOW)
    disputed.rounds.advance(1, RoundState.CHECKING, RoundState.TRAINING, NOW)
    with pytest.raises(StoreError, match="round 1 is training; label maps are settled while it is checking"):
        settle(disputed, 1, "refused", "drop", NOW)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings of a project whose store is `store`."""
    path = tmp_path / "mad.yaml"
    settings = {
        "workspace": str(tmp_path),
        "label_set": "labels.yaml",
        "label_studio": {"url": URL},
        "pool": [{"name": "pool", "images": "."}],
        "s0": [{"name": "s0", "images": ".", "masks": "."}],
        "t0": [{"name": "t0", "images": ".", "masks": "."}],
        "models": {
            "name": "m",
            "target": {"kind": "folder", "path": "."},
            "competing": {"other": {"kind": "folder", "path": "."}},
        },
    }
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def test_the_commands_list_and_settle(disputed: Store, config: Path) -> None:
    run = CliRunner(env={"COLUMNS": "250", "MAD_LABEL_STUDIO_URL": ""})
    listed = run.invoke(app, ["disagreements", "--config", str(config)])
    assert listed.exit_code == 0, listed.output
    assert "12.50 %" in listed.output
    assert (
        f"mended: drawn at {URL}/projects/7/data?task=11, checked at {URL}/projects/8/data?task=21"
        in listed.output
    )
    answer = run.invoke(app, ["settle", "refused", "--take", "drop", "--config", str(config)])
    assert answer.output == "round 1: image refused is left out\n"
    answer = run.invoke(
        app, ["settle", "mended", "--take", "author", "--round", "1", "--config", str(config)]
    )
    assert answer.output == "round 1: image mended counts as its author painted it\n"
    found = json.loads(run.invoke(app, ["disagreements", "--json", "--config", str(config)]).output)
    assert [(one["image_id"], one["verdict"], one["is_open"]) for one in found] == [
        ("mended", "author", False),
        ("redrawn", "rejected", False),
        ("refused", "dropped", False),
    ]


def test_without_a_dispute_the_command_says_so(store: Store, config: Path) -> None:
    run = CliRunner(env={"MAD_LABEL_STUDIO_URL": ""})
    assert run.invoke(app, ["disagreements", "--config", str(config)]).output == "round 1: nobody disagrees\n"
    refused = run.invoke(app, ["disagreements", "--round", "4", "--config", str(config)])
    assert str(refused.exception) == "there is no round 4; `mad status` lists the rounds"
