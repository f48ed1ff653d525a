"""A fine-tuning as a file: what comes back is what was written."""

from dataclasses import replace
from pathlib import Path

from training.finetune import round_job, split_failures
from training.finetuning.job import Job
from training.finetuning.samples import Sample
from training.project import Project


def test_a_job_reads_back_as_it_was_written(finished: Project, tmp_path: Path) -> None:

    job = replace(round_job(finished, finished.store.rounds.get(2), "scenes@2"), folder=tmp_path)
    assert len(job.failures) > 0
    assert Job.read(job.write()) == job


def test_a_share_of_s_is_held_out_by_the_seed_and_never_all_of_it(finished: Project) -> None:
    failures = [Sample(str(n), Path(str(n)), None) for n in range(10)]  # type: ignore[arg-type]
    learnt, held_out = split_failures(failures, 0.2, seed=1)
    assert (len(learnt), len(held_out)) == (8, 2)
    assert {s.image_id for s in learnt} | {s.image_id for s in held_out} == {str(n) for n in range(10)}
    assert split_failures(failures, 0.2, seed=1) == (learnt, held_out)
    assert split_failures(failures, 0.2, seed=2) != (learnt, held_out)
    assert split_failures(failures[:1], 0.9, seed=1) == (failures[:1], [])
