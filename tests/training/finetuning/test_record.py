"""The record of a fine-tuning: what it was made from can be checked years later, and a changed start is noticed."""

import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mad_backend.errors import CorruptFileError, ImageError
from mad_backend.pool.truths import IndexIds, Truth
from tests.training.conftest import samples_of
from training.finetune import round_job
from training.finetuning.digests import FileDigests
from training.finetuning.environment import code_version, library_versions, machine
from training.finetuning.job import Job
from training.finetuning.manifest import DataLine, Use, changed, data_lines, data_root, decode, encode
from training.finetuning.record import begin, read_meta, verify
from training.project import Project


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def job(finished: Project, scenes: Path, tmp_path: Path) -> Job:
    """Two images of S, one of S(0), one of T(0) and an unlabelled one, all below tmp_path/data."""
    for part, masks in (("pool", "hidden_masks"), ("s0", "masks"), ("t0", "masks")):
        for sample in samples_of(scenes / part, masks, 3):
            for path in (sample.image, sample.truth.path):
                copy = tmp_path / "data" / path.relative_to(scenes)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
    data = tmp_path / "data"
    *failures, unlabelled = samples_of(data / "pool", "hidden_masks", 3)
    coded = replace(failures[1], truth=Truth(failures[1].truth.path, IndexIds(tuple(range(8)))))
    return replace(
        round_job(finished, finished.store.rounds.get(1), "scenes@1"),
        failures=(failures[0], coded),
        replay=tuple(samples_of(data / "s0", "masks", 1)),
        dev=tuple(samples_of(data / "t0", "masks", 1)),
        failures_dev=(),
        unlabelled=(unlabelled.image,),
        folder=tmp_path / "training" / "round-001",
    )


def test_a_version_tells_what_it_was_made_from(finished: Project) -> None:
    folder = finished.settings.workspace / "checkpoints" / "scenes@1"
    meta = json.loads((folder / "meta.json").read_text(), parse_constant=pytest.fail)
    assert (meta["version"], meta["started_from"], meta["seed"]) == ("scenes@1", "scenes@0", 4)
    assert meta["weights"] == {"model.safetensors": sha256(folder / "model.safetensors")}
    assert meta["settings"]["learning_rates"] == [1e-3, 3e-3]
    assert meta["target"]["kind"] == "mmseg"
    assert meta["chosen"]["best"]["dev"] == meta["dev_miou"]
    assert all(run["curve"][0].keys() >= {"epoch", "loss", "dev", "benchmark"} for run in meta["runs"])
    assert meta["libraries"]["torch"] == torch.__version__
    assert meta["starts"][0]["machine"]["threads"] == 1
    assert meta["starts"][0]["at"] <= meta["ended"]
    lines = decode((folder / "data.jsonl").read_bytes())
    assert meta["data"]["images"] == {"dev": 4, "failures": 6, "replay": 20}
    assert {line.image_id for line in lines if line.use == Use.FAILURES} == set(meta["failures"])
    masks = finished.store.final_masks(1)
    for line in lines:
        assert line.sha256 == sha256(Path(meta["data"]["root"]) / line.image)
        if line.use == Use.FAILURES:
            assert line.truth_sha256 == masks[line.image_id].sha256


def test_a_version_is_as_its_record_says_until_its_weights_are_touched(
    finished: Project, tmp_path: Path
) -> None:
    original = finished.settings.workspace / "checkpoints" / "scenes@1"
    assert verify(original) == []
    folder = tmp_path / "copy"
    shutil.copytree(original, folder)
    weights, data = folder / "model.safetensors", folder / "data.jsonl"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    data.write_bytes(b"".join(data.read_bytes().splitlines(keepends=True)[:-1]))
    assert verify(folder) == [f"{weights} is another than was written", f"{data} is another than was written"]
    weights.unlink()
    assert verify(folder)[0] == f"{weights} cannot be read: No such file or directory"
    (folder / "meta.json").write_text("{}")
    with pytest.raises(CorruptFileError, match="not the record of a fine-tuning: it does not tell version"):
        verify(folder)


def test_a_changed_or_missing_image_or_label_map_is_named(job: Job, tmp_path: Path) -> None:
    lines = decode(encode(data_lines(job, FileDigests(tmp_path / "digests.json"))))
    assert [line.use for line in lines] == ["failures", "failures", "replay", "dev", "unlabelled"]
    assert data_root(job) == tmp_path / "data"
    moved = tmp_path / "moved"
    (tmp_path / "data").rename(moved)
    assert changed(lines, moved) == []
    image, drawn, coded = (
        moved / lines[0].image,
        *(moved / str(line.truth["path"]) for line in lines[:2] if line.truth),
    )
    image.write_bytes(image.read_bytes() + b"x")
    drawn.unlink()
    coded.write_bytes(coded.read_bytes() + b"x")
    first, second, third = changed(lines, moved)
    assert first == f"image {image} (failures) is another than at that time"
    assert second.startswith(f"label map {drawn} (failures): ")
    assert third == f"label map {coded} (failures) is another than at that time"


def test_a_fine_tuning_goes_on_with_the_same_data_and_begins_anew_with_others(
    job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    begin(job)
    learnt = job.folder / "lr-0.001" / "last.pt"
    learnt.parent.mkdir()
    learnt.touch()

    def starts(given: Job) -> int:
        begin(given)
        return len(json.loads((job.folder / "beginning.json").read_text())["starts"])

    assert starts(job) == 2
    more_rates = job.settings.model_copy(update={"learning_rates": (1e-3, 3e-3, 5e-3)})
    assert starts(replace(job, settings=more_rates)) == 3
    assert learnt.exists()
    assert not caplog.messages
    job.failures[0].truth.path.write_bytes(job.failures[1].truth.path.read_bytes())
    assert starts(job) == 1
    assert not learnt.exists()
    assert caplog.messages == ["scenes@1 begins anew: its images, start or settings have changed since"]
    longer = job.settings.model_copy(update={"epochs": 3})
    assert starts(replace(job, settings=longer)) == 1


def test_a_file_is_read_for_its_checksum_once_as_long_as_it_stays_as_it_is(tmp_path: Path) -> None:
    known, image = tmp_path / "digests.json", tmp_path / "a.jpg"
    image.write_bytes(b"one")
    first = FileDigests(known).of_files([image])
    assert first == {image: hashlib.sha256(b"one").hexdigest()}
    known.write_text(known.read_text().replace(first[image], "told"))
    assert FileDigests(known).of_files([image]) == {image: "told"}
    image.write_bytes(b"other")
    assert FileDigests(known).of_files([image]) == {image: hashlib.sha256(b"other").hexdigest()}
    with pytest.raises(ImageError, match=r"b\.jpg cannot be read: No such file"):
        FileDigests(known).of_files([tmp_path / "b.jpg"])


def test_the_code_is_known_by_commit_and_nothing_the_checkout_names_is_run(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("needs git")

    def git(*arguments: str) -> str:
        told = subprocess.run(
            ["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True, text=True
        )
        return told.stdout.strip()

    assert code_version(tmp_path).commit is None
    (tmp_path / "training").mkdir()
    module = tmp_path / "training" / "module.py"
    module.write_text("one")
    git("init", "--quiet")
    git("add", "training")
    git("-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "-m", "first")
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    git("config", "core.fsmonitor", str(program))
    found = code_version(tmp_path)
    assert (found.commit, found.is_dirty) == (git("rev-parse", "HEAD"), False)
    module.write_text("another")
    assert code_version(tmp_path).is_dirty
    assert not (tmp_path / "ran").exists()


def test_facts_of_the_machine_are_told() -> None:
    found = machine(torch.device("cpu"), 3)
    assert (found.device, found.threads, found.cuda) == ("cpu", 3, None)
    assert found.cpu
    assert library_versions().keys() >= {"python", "torch", "numpy", "mmengine", "mmseg"}


def test_a_line_of_data_reads_back_as_it_was_written() -> None:
    lines = [
        DataLine(Use.DEV, "t0/a", "a.jpg", "0", {"path": "a.png"}, "1"),
        DataLine(Use.UNLABELLED, "b", "b", "2"),
    ]
    assert decode(encode(lines)) == lines
    with pytest.raises(ValueError, match="validation error"):
        decode(b"{}\n")


def test_a_folder_without_a_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CorruptFileError, match=r"meta\.json is not the record of a fine-tuning: .*No such file"
    ):
        read_meta(tmp_path)
