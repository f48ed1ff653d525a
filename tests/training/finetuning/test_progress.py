"""What is told while a grid is trained."""

from dataclasses import replace
from pathlib import Path

import pytest

from training.finetuning.progress import Meter, Progress, ProgressFile, duration

FIRST = Progress(learning_rate=1e-3, epoch=1, epochs=4, step=1, steps=40, loss=0.71234)


def test_a_note_tells_epoch_loss_dev_set_and_the_time_that_is_left() -> None:
    told: list[tuple[str, int, int]] = []
    now = [100.0]
    meter = Meter(lambda *given: told.append(given), {1e-3: 4, 1e-2: 8}, clock=lambda: now[0])
    meter(FIRST)
    assert told[-1] == ("fine-tuning at 0.001 epoch 1 of 4, loss 0.7123 (0 of 2 rates done)", 1, 120)
    now[0] = 120.0
    meter(replace(FIRST, epoch=2, step=11, dev=0.5, best=0.52))
    note = "epoch 2 of 4, loss 0.7123, dev mIoU 0.5000, best 0.5200 (0 of 2 rates done, 4 min left)"
    assert told[-1] == (f"fine-tuning at 0.001 {note}", 11, 120)
    meter.finish(1e-3)
    meter(replace(FIRST, learning_rate=1e-2, epochs=8, steps=80))
    assert told[-1][0].startswith("fine-tuning at 0.01 epoch 1 of 8")
    assert told[-1][1:] == (41, 120)


def test_runs_side_by_side_are_told_together() -> None:
    told: list[tuple[str, int, int]] = []
    meter = Meter(lambda *given: told.append(given), {1e-3: 4, 1e-2: 4})
    meter(FIRST)
    meter(replace(FIRST, learning_rate=1e-2, step=5))
    assert "at 0.001 epoch 1 of 4, loss 0.7123; at 0.01 epoch 1 of 4" in told[-1][0]
    assert told[-1][1:] == (6, 80)


def test_another_process_reads_the_last_step_whatever_the_pace(tmp_path: Path) -> None:
    file = ProgressFile(tmp_path / "run")
    assert file.read() is None
    for step in range(1, 41):
        file.tell(replace(FIRST, step=step))
    assert file.read() == replace(FIRST, step=40)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["progress.json"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (100, "2 min"), (3_500, "58 min"), (11_100, "3 h 5 min")],
)
def test_durations_are_told_in_the_units_that_matter(seconds: float, text: str) -> None:
    assert duration(seconds) == text
