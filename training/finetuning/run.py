"""One fine-tuning run at one learning rate, by mmengine's Runner, for targets of every trainable kind (Sec. 4.1)."""

import logging
import uuid
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import Runner

from mad_backend.models.mmseg_model import MmsegModel
from mad_backend.models.torch_model import TorchModel
from training.finetuning.accuracy import quick_accuracy
from training.finetuning.answers import AnswerStore, answers_for
from training.finetuning.balance import class_weights
from training.finetuning.checkpoints import BEST, DivergedError, TrainingState, best_of
from training.finetuning.distillation import Distiller
from training.finetuning.files import forget_unfinished
from training.finetuning.interpolation import interpolate
from training.finetuning.loading import batches, cache_for
from training.finetuning.memory import Parts, is_out_of_memory, smallest_share
from training.finetuning.optimiser import Modes, StepSchedule, build_optimiser, freezes_batch_norm, schedule
from training.finetuning.plan import FailedRun, RunPlan, RunResult
from training.finetuning.ranks import OwnPart, joined, rank, wait
from training.finetuning.results import read_result, write_result
from training.finetuning.runner import StayingRunner
from training.finetuning.samples import ReplaySampler, SampleDataset, Unlabelled
from training.finetuning.segmentor import runnable
from training.finetuning.teachers import teacher_of
from training.finetuning.transforms import build_transforms, own_ids, repeats
from training.finetuning.whole_batch import WholeBatchLoop

log = logging.getLogger(__name__)


def train(model: TorchModel, learning_rate: float, plan: RunPlan, folder: Path) -> RunResult | FailedRun:
    """Trains `model` in place and keeps its best epoch under `folder`; goes on from the last finished epoch.

    A run that was finished before is not repeated. Deterministic by `plan.seed` on one device. A learning rate at which
    losses or weights are no longer numbers ends there. When memory runs out, batches are learnt in parts (`Parts`);
    raises TrainingError when the smallest are too large, and StoreError when the disk is full.
    """
    earlier = read_result(folder, learning_rate)
    if earlier is not None:
        return earlier
    folder.mkdir(parents=True, exist_ok=True)
    if rank() == 0:
        forget_unfinished(folder)
    start = {name: value.detach().cpu().clone() for name, value in model.module.state_dict().items()}
    settings = plan.settings
    sampler = ReplaySampler(
        len(plan.failures),
        len(plan.replay),
        settings.batch_size,
        plan.seed,
        settings.replay,
        unlabelled=len(plan.unlabelled),
        extra=settings.distillation.images if settings.distillation.pool else 0,
    )
    network = _network(model, plan)
    parts = Parts(folder.parent)
    images = smallest_share(sampler, batch_norm_frozen=freezes_batch_norm(settings))
    while True:
        state = TrainingState(model, learning_rate, plan, sampler, folder, start)
        used = min(parts.number, images)
        try:
            stopped = _attempt(network, model, learning_rate, plan, sampler, state, folder, used)
            break
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            told = str(error)
        # Not in the clause: what the failed attempt holds is freed with its traceback.
        parts.double(used, images, told)
    if rank() == 0:
        mixture = None
        if settings.interpolation and best_of(state.curve):
            mixture = interpolate(model, start, settings.interpolation, plan.measure, folder)
        write_result(folder, state, used, stopped, mixture)
    wait()
    found = read_result(folder, learning_rate)
    assert found
    return found


def _network(model: TorchModel, plan: RunPlan) -> Any:
    """What mmengine trains, with f(i-1) as its teacher where there is one to be."""
    distillation = plan.settings.distillation
    if distillation.pool and not plan.unlabelled:
        log.warning("there are no images of the pool; training.distillation.pool has nothing to weigh")
    pool = distillation.pool if plan.unlabelled else 0
    distiller = None
    if max(distillation.failures, distillation.replay, pool) > 0:
        teacher = teacher_of(model, plan.teachers, mirror=distillation.mirror, store=_answers(model, plan))
        distiller = Distiller(teacher, plan.settings, align_corners=model.align_corners)
    weights = class_weights(model, plan.settings, plan.failures, plan.replay, plan.seed)
    return runnable(model, plan.settings, weights, distiller)


def _answers(model: TorchModel, plan: RunPlan) -> AnswerStore | None:
    """Where teachers' answers are kept, if the same images come again."""
    capacity = answers_for(model.device, plan.settings.distillation.cache_bytes)
    if plan.answers is None or not capacity or not repeats(build_transforms(model, plan.settings)):
        return None
    return AnswerStore(plan.answers, capacity)


def _attempt(
    network: Any,
    model: TorchModel,
    learning_rate: float,
    plan: RunPlan,
    sampler: ReplaySampler,
    state: TrainingState,
    folder: Path,
    parts: int,
) -> str | None:
    """Trains from the last finished epoch to the end; returns what stopped it before."""
    dataset = SampleDataset(
        [*plan.failures, *plan.replay, *map(Unlabelled, plan.unlabelled)],
        plan.grid,
        own_ids(model),
        build_transforms(model, plan.settings),
        cache_for(model.device, plan.settings.cache_bytes),
    )
    with (
        quick_accuracy(),
        batches(dataset, OwnPart(sampler), model.device, plan.settings.workers) as loader,
    ):
        runner = _build_runner(network, model, learning_rate, plan, loader, state, folder, parts)
        try:
            runner.train()
        except DivergedError as error:
            log.warning("the run at %g is stopped: %s", learning_rate, error)
            return str(error)
    return state.given_up.reason if state.given_up else None


def load_best(model: TorchModel, result: RunResult) -> None:
    """Puts the chosen weights into `model`: the best epoch's, or their best mixture with those before it."""
    saved = torch.load(result.folder / BEST, map_location="cpu", weights_only=True)
    model.module.load_state_dict(saved["model"])


def _build_runner(
    network: Any,
    model: TorchModel,
    learning_rate: float,
    plan: RunPlan,
    loader: Any,
    state: TrainingState,
    folder: Path,
    parts: int,
) -> Runner:
    settings = plan.settings
    hooks: dict[str, Any] = dict.fromkeys(("timer", "logger", "checkpoint", "sampler_seed"))
    hooks["param_scheduler"] = StepSchedule()
    # Before processes are joined, which is told what learns.
    optimiser = build_optimiser(model, learning_rate, settings)
    return StayingRunner(
        model=joined(network, model.device, batch_norm_frozen=freezes_batch_norm(settings)),
        work_dir=str(folder),
        train_dataloader=loader,
        train_cfg={"type": WholeBatchLoop, "max_epochs": settings.epochs, "parts": parts},
        optim_wrapper=optimiser,
        param_scheduler=schedule(settings, len(loader)),
        default_hooks=hooks,
        custom_hooks=[*_user_hooks(model), Modes(model, settings), state],
        default_scope="mmseg",
        log_level="ERROR",
        randomness={"seed": plan.seed},
        experiment_name=f"{folder.parent.name}-{folder.name}-{uuid.uuid4().hex}",
    )


def _user_hooks(model: TorchModel) -> list[Any]:
    return list(model.config.get("custom_hooks", [])) if isinstance(model, MmsegModel) else []
