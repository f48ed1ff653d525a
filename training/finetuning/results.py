"""How a run ended, in a file that tells whoever comes later: result.json."""

import json
from dataclasses import asdict, replace
from pathlib import Path

from training.finetuning.checkpoints import LAST, TrainingState, best_of
from training.finetuning.dev import DevScore
from training.finetuning.files import write_json
from training.finetuning.interpolation import Mixture
from training.finetuning.plan import EpochRecord, FailedRun, RunResult

NAME = "result.json"


def write_result(
    folder: Path, state: TrainingState, parts: int, stopped: str | None, mixture: Mixture | None
) -> None:
    """Ends the run in `folder`: it is not repeated from then on."""
    told = {
        "curve": [asdict(record) for record in state.curve],
        "parts": parts,
        "stopped": stopped,
        "given_up_beside": state.given_up.beside if state.given_up else None,
        "start": state.start_score.told() if state.start_score else None,
        "mixture": {"share": mixture.share, "score": mixture.score.told()} if mixture else None,
    }
    write_json(folder / NAME, told)
    # Only a run that goes on needs it, and disks fill night by night.
    (folder / LAST).unlink(missing_ok=True)


def read_result(folder: Path, learning_rate: float) -> RunResult | FailedRun | None:
    """How the run in `folder` ended; None while it has not."""
    path = folder / NAME
    if not path.exists():
        return None
    told = json.loads(path.read_text(encoding="utf-8"))
    curve = tuple(EpochRecord(**record) for record in told["curve"])
    best = best_of(curve)
    if best is None:
        reason = told["stopped"] or "no dev mIoU that is a number"
        return FailedRun(learning_rate, folder, reason)
    start = DevScore(**told["start"]) if told["start"] else None
    share = None
    if told["mixture"]:
        score, share = DevScore(**told["mixture"]["score"]), told["mixture"]["share"]
        best = replace(best, dev=score.value, benchmark=score.benchmark, failures=score.failures)
    return RunResult(
        learning_rate,
        best,
        curve,
        folder,
        told["parts"],
        told["stopped"],
        start,
        share,
        told.get("given_up_beside"),
    )
