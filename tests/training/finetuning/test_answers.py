"""Teachers are asked once about an image that comes again, and nobody can tell from the weights."""

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mad_backend.settings import TrainingSettings
from tests.training.finetuning.conftest import ModelOf, PlanOf
from tests.training.finetuning.small_jobs import job_maker
from tests.training.finetuning.trained import run, same, weights
from training.finetuning.answers import AnswerStore, answerer, answers_for
from training.finetuning.grid_search import forget_weights
from training.finetuning.job import ANSWERS
from training.finetuning.plan import RunPlan
from training.finetuning.record import begin
from training.finetuning.teachers import FrozenTeacher, Points, teacher_of
from training.finetuning.transforms import build_transforms, repeats

ANSWER = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)


def kept(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_was_put_is_there_for_every_process_until_its_file_is_torn(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path / "new" / "answers", 1 << 20)
    assert store.get("ab1") is None
    store.put("ab1", ANSWER)
    other = AnswerStore(tmp_path / "new" / "answers", 1 << 20)
    np.testing.assert_array_equal(other.get("ab1"), ANSWER)
    (file,) = kept(tmp_path)
    content = file.read_bytes()
    for torn in (b"", content[:3], content[:-9], bytes(len(content))):
        file.write_bytes(torn)
        assert other.get("ab1") is None
    other.put("ab1", ANSWER)
    np.testing.assert_array_equal(store.get("ab1"), ANSWER)


def test_several_processes_that_write_one_answer_leave_one_whole_file(tmp_path: Path) -> None:
    def write() -> None:
        store = AnswerStore(tmp_path, 10**6)
        for number in range(50):
            store.put("ab1", np.full((1, 2, 60, 60), number, np.float32))

    writers = [multiprocessing.get_context("fork").Process(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    found = AnswerStore(tmp_path, 10**6).get("ab1")
    assert found is not None
    assert (found == 49).all()
    assert len(kept(tmp_path)) == 1


def test_what_was_not_read_for_longest_makes_room(tmp_path: Path) -> None:
    one = AnswerStore(tmp_path, 1 << 20)
    one.put("aa0", ANSWER)
    size = kept(tmp_path)[0].stat().st_size
    store = AnswerStore(tmp_path, 5 * size)
    for number in range(1, 4):
        store.put(f"aa{number}", ANSWER)
        os.utime(tmp_path / "aa" / f"aa{number}", (number, number))
    os.utime(tmp_path / "aa" / "aa0", (0, 0))
    assert store.get("aa0") is not None, "which is a reason to keep it"
    for number in range(4, 6):
        store.put(f"aa{number}", ANSWER)
    assert [path.name for path in kept(tmp_path)] == ["aa0", "aa2", "aa3", "aa4", "aa5"]
    assert sum(path.stat().st_size for path in kept(tmp_path)) <= 5 * size


def test_a_folder_that_cannot_be_written_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    store = AnswerStore(tmp_path / "file", 1 << 20)
    for _ in range(2):
        store.put("ab1", ANSWER)
        assert store.get("ab1") is None
    assert len(caplog.records) == 1
    assert "no longer kept" in caplog.text


def taught(model_of: ModelOf, plan: RunPlan, folder: Path, answers: Path | None) -> tuple[Any, int]:
    """The weights after a run, and how many images its competing teacher was asked about."""
    rival, asked = model_of("plain"), [0]

    def counted(_module: Any, _given: Any) -> None:
        asked[0] += 1

    rival.module.body[0].register_forward_pre_hook(counted)
    model = model_of("module")
    run(model, replace(plan, teachers=[rival], answers=answers), folder)
    return weights(model), asked[0]


def test_weights_are_the_same_whether_no_some_or_all_answers_are_kept(
    model_of: ModelOf, plan_of: PlanOf, tmp_path: Path
) -> None:
    plan = plan_of(4, epochs=2, loss_stride=4, distillation={"failures": 1.0, "pool": 1.0, "mirror": True})
    answers = tmp_path / "answers"
    wanted, asked = taught(model_of, plan, tmp_path / "none", None)
    first, asked_first = taught(model_of, plan, tmp_path / "empty", answers)
    assert asked_first < asked, "in the second epoch images come again"
    files = kept(answers)
    for file in files[::3]:
        file.unlink()
    half, asked_half = taught(model_of, plan, tmp_path / "half", answers)
    full, asked_full = taught(model_of, plan, tmp_path / "full", answers)
    assert 0 < asked_half < asked_first
    assert asked_full < asked_half
    assert kept(answers) == files
    assert [same(found, wanted) for found in (first, half, full)] == [True, True, True]


def test_a_run_that_was_killed_ends_alike_with_what_it_has_kept(
    model_of: ModelOf, plan_of: PlanOf, tmp_path: Path
) -> None:
    plan = plan_of(3, epochs=2, loss_stride=4, distillation={"failures": 1.0, "mirror": True})
    wanted, _ = taught(model_of, plan, tmp_path / "undisturbed", tmp_path / "others")

    def kill(told: Any) -> None:
        if told.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        taught(model_of, replace(plan, progress=kill), tmp_path / "killed", tmp_path / "answers")
    found, _ = taught(model_of, plan, tmp_path / "killed", tmp_path / "answers")
    assert same(found, wanted)


def test_mirrored_images_are_asked_about_once(model_of: ModelOf, tmp_path: Path) -> None:
    model = model_of("plain")
    teacher = teacher_of(model, [], mirror=True, store=AnswerStore(tmp_path, 1 << 20))
    inputs = torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    points = Points((48, 64), (24, 32))
    plain = teacher.answers(inputs, points)
    files = kept(tmp_path)
    turned = teacher.answers(inputs.flip(-1), points)
    assert kept(tmp_path) == files
    assert len(files) == 2
    torch.testing.assert_close(turned.flip(-1), plain)
    torch.testing.assert_close(plain, teacher_of(model, [], mirror=True).answers(inputs, points))


def test_of_fine_logits_only_those_at_the_points_are_kept(model_of: ModelOf, tmp_path: Path) -> None:
    model = model_of("smp")
    inputs = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    points = Points((64, 64), (64, 64), 4)
    teacher = FrozenTeacher(model, AnswerStore(tmp_path, 1 << 20))
    for mirrored in (False, True):
        wanted = FrozenTeacher(model).answers(inputs, points, mirrored=mirrored)
        for _ in range(2):
            torch.testing.assert_close(teacher.answers(inputs, points, mirrored=mirrored), wanted)
    assert len(kept(tmp_path)) == 2
    assert all(4 * 8 * 16 * 16 < file.stat().st_size < 4 * 8 * 17 * 17 for file in kept(tmp_path))


def test_another_network_is_another_answerer(model_of: ModelOf) -> None:
    model, again = model_of("module"), model_of("module")
    assert answerer(model) == answerer(again)
    assert answerer(model, 1) != answerer(model)
    with torch.no_grad():
        again.module.head.bias[0] += 1e-3
    assert answerer(again) != answerer(model)
    assert answerer(model_of("plain")) != answerer(model)


@pytest.mark.parametrize("setting", [{"crop": 32}, {"scale": (0.5, 2.0)}, {"photometric": True}])
def test_images_that_never_come_again_are_not_kept(
    setting: dict[str, Any], model_of: ModelOf, plan_of: PlanOf
) -> None:
    model = model_of("module")
    assert repeats(build_transforms(model, plan_of().settings))
    assert not repeats(build_transforms(model, plan_of(**setting).settings))


def test_nothing_is_kept_where_settings_say_so_and_for_a_gpu(
    model_of: ModelOf, plan_of: PlanOf, tmp_path: Path
) -> None:
    plan = plan_of(distillation={"failures": 1.0, "cache_bytes": 0})
    taught(model_of, plan, tmp_path / "run", tmp_path / "answers")
    assert not (tmp_path / "answers").exists()
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [answers_for(device, None) for device in (cpu, gpu)] == [4 << 30, 0]
    assert answers_for(gpu, 7) == 7


def test_a_job_of_its_own_forgets_the_answers_and_another_capacity_is_no_other_job(
    scenes: Path, tmp_path: Path
) -> None:
    job = job_maker(scenes, tmp_path)()
    begin(job)
    (job.folder / ANSWERS).mkdir()
    fields = job.settings.model_dump() | {"distillation": {"cache_bytes": 9}}
    begin(replace(job, settings=TrainingSettings.model_validate(fields)))
    assert (job.folder / ANSWERS).exists(), "it did not begin anew"
    forget_weights(job)
    assert not (job.folder / ANSWERS).exists()
