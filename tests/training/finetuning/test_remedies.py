"""Each option of the recipe does what its name says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS
from torch.nn import functional

from mad_backend.errors import TrainingError
from mad_backend.models.registry import load_model
from mad_backend.models.torch_model import TorchModel
from mad_backend.settings import TrainingSettings
from tests.training.finetuning.conftest import GRID, SCENES, ModelOf, PlanOf
from tests.training.finetuning.trained import Weights, batch_of, distance, run, same, watching, weights
from training.finetuning.balance import balanced, class_balance, class_weights
from training.finetuning.dev import DevScore
from training.finetuning.interpolation import mixed
from training.finetuning.optimiser import Modes, backbone_of, build_optimiser, schedule
from training.finetuning.run import load_best
from training.finetuning.samples import Draw, SampleDataset
from training.finetuning.segmentor import runnable
from training.finetuning.transforms import build_transforms, own_ids


def test_the_rate_rises_over_the_warm_up_and_falls_to_the_last_step(
    model_of: ModelOf, plan_of: PlanOf, tmp_path: Path
) -> None:
    model, seen = model_of("plain"), []
    plan = plan_of(count=4, epochs=2, optimizer="adamw", warmup=3, weight_decay=0.0, poly_power=1.0)

    optimiser = build_optimiser(model, 1e-3, plan.settings)
    assert isinstance(optimiser.optimizer, torch.optim.AdamW)
    assert optimiser.optimizer.defaults["betas"] == (0.9, 0.99)
    schedulers = [
        PARAM_SCHEDULERS.build({**part, "optimizer": optimiser}) for part in schedule(plan.settings, 4)
    ]
    for _ in range(8):
        seen.append(optimiser.param_groups[0]["lr"])
        optimiser.update_params(sum(p.sum() for p in model.module.parameters()))
        for scheduler in schedulers:
            scheduler.step()
    wanted = [1e-3 * min(1, (k + 1) / 4) * (1 - k / 8) for k in range(8)]
    assert seen == pytest.approx(wanted)
    result = run(model, plan, tmp_path / "run", rate=1e-3)
    assert result.curve[-1].loss < result.curve[0].loss


def test_the_dev_set_chooses_the_mixture_and_at_0_it_is_the_version_before(
    model_of: ModelOf, plan_of: PlanOf, tmp_path: Path
) -> None:
    start = weights(model_of("module"))
    measured: list[Weights] = []

    def measure(model: TorchModel) -> DevScore:
        """Start, two epochs, then the shares 0, 0.5 and 1."""
        measured.append(weights(model))
        return DevScore([0.5, 0.6, 0.4, 0.5, 0.8, 0.8][len(measured) - 1])

    plan = replace(plan_of(epochs=2, interpolation=(1.0, 0.0, 0.5)), measure=measure)
    result = run(model_of("module"), plan, tmp_path / "half")
    assert (result.start, result.share, result.best.epoch, result.best.dev) == (DevScore(0.5), 0.5, 1, 0.8)
    assert result.is_better
    assert same(
        measured[3], {**start, "body.1.num_batches_tracked": measured[1]["body.1.num_batches_tracked"]}
    )
    assert same(measured[5], measured[1])
    chosen = model_of("module")
    load_best(chosen, result)
    assert same(weights(chosen), mixed(start, measured[1], 0.5))
    assert run(model_of("module"), plan, tmp_path / "half") == result

    level = replace(plan_of(interpolation=(0.0, 1.0)), measure=lambda model: DevScore(0.5))
    kept = run(model_of("module"), level, tmp_path / "level")
    assert (kept.share, kept.is_better) == (0.0, False), "of equals the version before"
    load_best(chosen, kept)
    assert distance(chosen, model_of("module")) == 0


def test_an_interpolation_that_was_killed_is_repeated_from_the_best_epoch(
    model_of: ModelOf, plan_of: PlanOf, tmp_path: Path
) -> None:
    def killed(model: TorchModel) -> DevScore:
        killed.calls += 1  # type: ignore[attr-defined]
        if killed.calls == 4:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return DevScore(0.5)

    killed.calls = 0  # type: ignore[attr-defined]
    plan = plan_of(interpolation=(0.25, 0.75))
    with pytest.raises(KeyboardInterrupt):
        run(model_of("module"), replace(plan, measure=killed), tmp_path / "killed")
    found = run(model_of("module"), plan, tmp_path / "killed")
    wanted = run(model_of("module"), plan, tmp_path / "undisturbed")
    assert replace(found, folder=wanted.folder) == wanted
    one, two = model_of("module"), model_of("module")
    load_best(one, found)
    load_best(two, wanted)
    assert same(weights(one), weights(two))


def test_two_batches_of_two_that_make_one_step_are_a_batch_of_four(
    model_of: ModelOf, plan_of: PlanOf, tmp_path: Path
) -> None:
    trained = []
    for batch_size, accumulate in ((4, 1), (2, 2)):
        model = model_of("plain")
        plan = plan_of(batch_size=batch_size, accumulate=accumulate, horizontal_flip=False, epochs=2)
        run(model, plan, tmp_path / str(batch_size))
        trained.append(weights(model))
    for name, value in trained[0].items():
        torch.testing.assert_close(trained[1][name], value, rtol=1e-5, atol=1e-6)
    assert not same(trained[0], weights(model_of("plain")))


def test_an_epoch_s_last_batches_make_a_step_though_they_are_too_few(
    model_of: ModelOf, plan_of: PlanOf, tmp_path: Path
) -> None:
    model = model_of("plain")
    states = []
    plan = plan_of(count=3, accumulate=2, epochs=2)
    run(model, watching(plan, lambda: states.append(weights(model))), tmp_path / "run")
    moved = [not same(*pair) for pair in zip([weights(model_of("plain")), *states], states, strict=False)]
    assert moved == [False, True, True, False, True, True]


def test_the_averaged_weights_are_those_by_hand_and_are_what_is_kept(
    model_of: ModelOf, plan_of: PlanOf, tmp_path: Path
) -> None:
    model = model_of("module")
    average = weights(model)

    def look() -> None:
        for name, value in weights(model).items():
            average[name] = 0.7 * average[name] + 0.3 * value if value.is_floating_point() else value

    plan = plan_of(count=3, ema=0.7, freeze_batch_norm=False)
    result = run(model, watching(plan, look), tmp_path / "run")
    kept = model_of("module")
    load_best(kept, result)
    for name, value in weights(kept).items():
        torch.testing.assert_close(value, average[name])
    assert not same(weights(kept), weights(model))


@pytest.mark.parametrize("kind", ["module", "hf", "smp", "torchvision", "mmseg"])
def test_the_backbone_is_found_and_has_its_own_rate(
    kind: str, model_of: ModelOf, scene_labels: object
) -> None:
    model = model_of(kind)
    optimiser = build_optimiser(model, 1e-3, TrainingSettings(recipe="paper", backbone_rate=0.1)).optimizer
    head, body = optimiser.param_groups
    assert (head["lr"], body["lr"]) == (1e-3, pytest.approx(1e-4))
    inside = sum(p.numel() for part in backbone_of(model) for p in part.parameters())
    assert sum(p.numel() for p in body["params"]) == inside
    every = sum(p.numel() for p in model.module.parameters())
    assert 0 < inside < every == inside + sum(p.numel() for p in head["params"])


def test_a_frozen_backbone_does_not_move_and_neither_do_its_statistics(
    model_of: ModelOf, plan_of: PlanOf, tmp_path: Path
) -> None:
    model, start = model_of("module"), weights(model_of("module"))
    run(model, plan_of(backbone_rate=0, freeze_batch_norm=False), tmp_path / "run")
    moved = {name for name, value in weights(model).items() if not torch.equal(value, start[name])}
    assert moved == {"head.weight", "head.bias"}


@pytest.mark.parametrize(("dropout", "is_on"), [(False, False), (True, True)])
def test_dropout_is_off_unless_it_is_asked_for(
    model_of: ModelOf, plan_of: PlanOf, tmp_path: Path, *, dropout: bool, is_on: bool
) -> None:
    model = model_of("module")
    seen: set[tuple[str, bool]] = set()
    plan = watching(
        plan_of(dropout=dropout),
        lambda: seen.update((type(part).__name__, part.training) for part in model.module.body),
    )
    run(model, plan, tmp_path / "run")
    assert ("Dropout2d", is_on) in seen
    assert ("Dropout2d", not is_on) not in seen
    assert ("BatchNorm2d", False) in seen
    assert TrainingSettings(recipe="paper").dropout
    assert not Modes(model, plan.settings)._still


def test_a_run_ends_when_patience_does_even_if_it_was_stopped_there(
    model_of: ModelOf, plan_of: PlanOf, tmp_path: Path
) -> None:
    marks = iter([0.1, 0.3, 0.5, 0.4, 0.5, None, 0.7])

    def measure(model: TorchModel) -> DevScore:
        """Start, four epochs, and the mixture, at which the run is killed the first time."""
        mark = next(marks)
        if mark is None:
            raise KeyboardInterrupt
        return DevScore(mark)

    plan = replace(plan_of(epochs=9, patience=2, interpolation=(1.0,)), measure=measure)
    with pytest.raises(KeyboardInterrupt):
        run(model_of("module"), plan, tmp_path / "run")
    result = run(model_of("module"), plan, tmp_path / "run")
    assert [record.dev for record in result.curve] == [0.3, 0.5, 0.4, 0.5]
    assert (result.best.epoch, result.best.dev) == (2, 0.7)


def test_bfloat16_runs_close_to_full_precision_and_fp16_wants_a_gpu(
    model_of: ModelOf, plan_of: PlanOf, tmp_path: Path
) -> None:
    losses = [
        run(model_of("module"), plan_of(precision=precision), tmp_path / precision).best.loss
        for precision in ("fp32", "bf16")
    ]
    assert losses[1] != losses[0]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match="fp16 is for GPUs, and there is none; write bf16"):
            run(model_of("module"), plan_of(precision="fp16"), tmp_path / "fp16")


def test_balanced_weights_are_inverse_frequencies_of_mean_1_over_pixels() -> None:
    shares = np.array([0.7, 0.2, 0.1, 0.0])
    found = balanced(shares)
    np.testing.assert_allclose(found[:3], 1 / (3 * shares[:3]))
    assert (shares * found).sum() == pytest.approx(1)
    rare = balanced(np.array([0.9989, 0.001, 0.0001]))
    assert rare[1] == rare[2], "no more than ten times the average"
    assert (np.array([0.9989, 0.001, 0.0001]) * rare).sum() == pytest.approx(1)


def test_weights_are_of_the_network_s_own_outputs(
    model_of: ModelOf, plan_of: PlanOf, caplog: pytest.LogCaptureFixture
) -> None:
    model, plan = model_of("mmseg"), plan_of()
    names = model.labels.names
    pixels = np.zeros((2, 8))
    for row, part in enumerate((plan.failures, plan.replay)):
        for sample in part:
            pixels[row] += np.bincount(sample.truth.read().ravel(), minlength=256)[:8]
        pixels[row] /= pixels[row].sum()
    with caplog.at_level("INFO", "training.finetuning.balance"):
        counted = class_balance(plan.failures, plan.replay, model.labels, 0)
    assert list(counted.failures.by_pixels.values()) == pytest.approx(list(pixels[0]))
    assert set(counted.missing) == {name for name, share in zip(names, pixels[0], strict=True) if share == 0}
    assert counted.missing
    assert all(name in caplog.text for name in counted.missing)

    settings = TrainingSettings(class_weights="balanced", replay=0.25)
    found = class_weights(model, settings, plan.failures, plan.replay, 0)
    assert found == pytest.approx(tuple(balanced(0.75 * pixels[0] + 0.25 * pixels[1])))
    by_name = TrainingSettings(class_weights={names[2]: 3.0})
    assert class_weights(model, by_name, [], [], 0) == (1, 1, 3, 1, 1, 1, 1, 1)
    runnable(model, by_name, (1, 1, 3, 1, 1, 1, 1, 1))
    assert model.module.decode_head.loss_decode.class_weight == [1, 1, 3, 1, 1, 1, 1, 1]
    with pytest.raises(TrainingError, match='names zebra; label set "scenes" has'):
        class_weights(model, TrainingSettings(class_weights={"zebra": 2.0}), [], [], 0)


def test_what_scale_makes_larger_is_cropped_and_settings_win_over_a_configuration_s_pipeline(
    model_of: ModelOf, plan_of: PlanOf
) -> None:
    for kind, settings, wanted in (
        ("torchvision", {"scale": (1.5, 1.5)}, (64, 64)),
        ("torchvision", {"scale": (0.5, 0.5), "photometric": True}, (24, 32)),
        ("torchvision", {"crop": 32}, (32, 32)),
        ("mmseg", {"crop": 32}, (32, 32)),
        ("mmseg", {}, (48, 64)),
    ):
        model, plan = model_of(kind), plan_of(**settings)
        steps = build_transforms(model, plan.settings)
        item = SampleDataset(plan.replay, GRID, own_ids(model), steps)[Draw(0, 3)]
        assert item["inputs"].shape[1:] == wanted
        assert item["data_samples"].gt_sem_seg.data.shape[1:] == wanted
    batch = batch_of(
        model := model_of("torchvision"),
        runnable(model, TrainingSettings(recipe="paper", crop=32)),
        plan,
        [Draw(0)],
    )
    assert batch["inputs"].shape[-1] == 64


def test_one_output_is_trained_as_two_classes(plan_of: PlanOf) -> None:
    logits = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    from training.finetuning.losses import divergence

    own, given = torch.sigmoid(logits), torch.sigmoid(logits + 1)
    wanted = functional.kl_div(
        torch.cat([1 - own, own], 1).log(), torch.cat([1 - given, given], 1), reduction="none"
    ).sum(1)
    torch.testing.assert_close(divergence(logits, logits + 1, 1.0), wanted)


def test_modules_and_hooks_that_a_python_configuration_names_take_part(
    model_of: ModelOf, plan_of: PlanOf, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_hooks.py").write_text(
        "from mmengine.hooks import Hook\n"
        "from mmengine.registry import HOOKS\n"
        "heads = []\n"
        "@HOOKS.register_module()\n"
        "class TheirHook(Hook):\n"
        "    def after_train_epoch(self, runner): heads.append(type(runner.model.decode_head).__name__)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = tmp_path / "theirs.py"
    config.write_text(
        f'_base_ = "{scenes}/models/target.py"\n'
        'custom_imports = dict(imports=["their_hooks"], allow_failed_imports=False)\n'
        'custom_hooks = [dict(type="TheirHook")]\n'
    )
    settings = model_of("mmseg").settings.model_copy(update={"config": config})
    model = load_model("target", settings, SCENES, GRID, "cpu")
    assert isinstance(model, TorchModel)
    run(model, plan_of(), tmp_path / "run")
    import their_hooks

    assert their_hooks.heads == ["DepthwiseSeparableFCNHead"]
