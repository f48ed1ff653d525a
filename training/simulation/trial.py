"""One trial: one strategy under one seed, round after round; stopped at any time, it goes on from there."""

import hashlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from mad_backend.core.records import ModelVersion
from mad_backend.pool.mask_files import write_mask
from mad_backend.pool.sources import LabelledImage
from mad_backend.pool.truths import Truth
from training.evaluate import T0, matrices_of, without_surplus
from training.finetune import labelled_samples, make_job
from training.finetuning.files import write_bytes
from training.finetuning.version import make_version
from training.oracles import Oracle
from training.people import Report
from training.simulation.choosing import choose_round
from training.simulation.predicting import predict
from training.simulation.quarantine import left_out
from training.simulation.records import OPEN, ROUND, RoundRecord, Trial, TrialRecord
from training.simulation.strategies import parse_mix
from training.simulation.world import World


def run_trial(world: World, strategy: str, rounds: int, report: Report) -> Trial:
    """Whatever is finished is only read, rounds of a shorter trial too.

    Label maps of f(0) and the competing models must be there (`prepare`).
    """
    folder = world.settings.workspace
    began = time.monotonic()
    wanted = world.fingerprint(strategy, world.settings.seed)
    if found := Trial.finished(folder, wanted, rounds):
        return found
    mix = parse_mix(strategy)
    oracle = Oracle(world.labels, world.truths, world.settings.seed, world.settings.simulation.oracle)
    versions, done = [world.current_target()], list[RoundRecord]()
    for number in range(1, rounds + 1):
        target = versions[-1]
        predict(world, [target], report)
        path = folder / f"round-{number:03d}-{wanted[:12]}.json"
        if path.exists():
            record = ROUND.validate_json(path.read_bytes())
        else:
            record = choose_round(world, oracle, target, mix, done, report)
            write_bytes(path, ROUND.dump_json(record, indent=1))
        done.append(record)
        versions.append(_train(world, oracle, target, done, report))
    predict(world, versions, report)
    trial = _measured(world, strategy, wanted, versions, done, time.monotonic() - began)
    trial.write(folder)
    return trial


def _train(
    world: World, oracle: Oracle, target: ModelVersion, done: Sequence[RoundRecord], report: Report
) -> ModelVersion:
    """f(i) from f(i-1), S(1..i) and S(0); T(1..i) and W are seen by nobody."""
    record, settings = done[-1], world.settings
    hidden = {i for r in done for i in r.test_set} | set(world.open_images)
    failures = [_drawn(world, oracle, i) for r in done for i in r.failures]
    unlabelled = [i for name, i in sorted(world.pool.items()) if name not in hidden]
    out = left_out(world, hidden, [*(i.image for i in (*failures, *world.s0)), *unlabelled])
    job = make_job(
        world,
        record.version,
        target,
        labelled_samples(world, [i for i in failures if i.image.image_id not in out]),
        labelled_samples(world, [i for i in world.s0 if i.image.image_id not in out]),
        tuple(world.local_file(i) for i in unlabelled if i.image_id not in out)
        if settings.training.distillation.pool
        else (),
        settings.training,
        settings.seed + record.number,
        settings.workspace / "training" / f"round-{record.number:03d}",
    )
    path = make_version(job, settings.workspace / "checkpoints" / record.version, report)
    return ModelVersion(record.version, record.number, str(path), datetime.fromtimestamp(0, UTC))


def _drawn(world: World, oracle: Oracle, image_id: str) -> LabelledImage:
    """The image with the label map that the oracle's annotator draws of it."""
    settings = world.settings.simulation.oracle
    if not (settings.boundary or settings.confusion):
        return LabelledImage(world.pool[image_id], world.truths[image_id])
    name = hashlib.sha256(image_id.encode()).hexdigest()[:16]
    path = world.masks_root / f"{name}.png"
    write_mask(path, oracle.flawed_drawing(image_id))
    return LabelledImage(world.pool[image_id], Truth(path))


def _measured(
    world: World,
    strategy: str,
    wanted: str,
    versions: Sequence[ModelVersion],
    done: Sequence[RoundRecord],
    seconds: float,
) -> Trial:
    """Every model on T(0), T(1..r) and W, every version on S(1..r): against the truth, whatever was drawn."""
    sets = {T0: world.t0_report, OPEN: world.labelled(world.open_images)}
    for record in done:
        sets[f"T({record.number})"] = without_surplus(world, world.labelled(list(record.test_set)))
        sets[f"S({record.number})"] = world.labelled(list(record.failures))
    keys = {v.version: world.target_key(v) for v in versions}
    keys |= world.competitor_keys()
    matrices = {
        (model, name): matrices_of(world, key, items)
        for model, key in keys.items()
        for name, items in sets.items()
        if items
    }
    found = TrialRecord(
        strategy,
        world.settings.seed,
        wanted,
        versions[0].version,
        tuple(sorted(world.settings.models.competing)),
        tuple(done),
        {v.version: v.path for v in versions},
        {name: tuple(i.image.image_id for i in items) for name, items in sets.items()},
        seconds,
    )
    return Trial(found, matrices)
