"""Training samples: half S, half S(0), on the grid, in the network's own ids."""

import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mad_backend.core.grid import Grid
from mad_backend.core.labels import VOID, LabelSet
from mad_backend.core.records import PoolImage
from mad_backend.errors import ImageError, TrainingError
from mad_backend.models.mmseg_model import MmsegModel
from mad_backend.models.torch_model import TorchModel
from mad_backend.pool.images import decode_frame
from mad_backend.pool.truths import Truth
from mad_backend.settings import ModelSettings, TrainingSettings
from mad_backend.settings_file import load_label_set
from tests.training.conftest import CONFIGS, samples_of
from training.finetuning.accuracy import quick_accuracy
from training.finetuning.image_cache import ImageCache
from training.finetuning.loading import batches, cache_for, workers_for
from training.finetuning.packing import pack, unpack
from training.finetuning.plan import RunPlan
from training.finetuning.run import train
from training.finetuning.samples import Draw, ReplaySampler, SampleDataset
from training.finetuning.transforms import build_transforms, own_ids

GRID = Grid(64)


@pytest.fixture(scope="module")
def labels() -> LabelSet:
    return load_label_set(CONFIGS / "label_sets" / "scenes.yaml")


@pytest.mark.parametrize(("failures", "replay", "batch_size"), [(6, 10, 2), (7, 3, 4), (1, 20, 2), (5, 2, 8)])
def test_batches_are_half_new_and_half_old_and_an_epoch_is_one_pass_over_s(
    failures: int, replay: int, batch_size: int
) -> None:
    sampler = ReplaySampler(failures, replay, batch_size, seed=4)
    orders, seeds = [], set()
    for epoch in range(3):
        sampler.epoch = epoch
        drawn = list(sampler)
        assert len(drawn) == len(sampler) == -(-failures // (batch_size // 2))
        for batch in drawn:
            assert len(batch) == batch_size
            assert sum(draw.sample < failures for draw in batch) == batch_size // 2
        flat = [draw.sample for batch in drawn for draw in batch]
        seeds.update(draw.seed for batch in drawn for draw in batch)
        seen = [index for index in flat if index < failures]
        assert set(seen) == set(range(failures))
        assert len(seen) - failures < batch_size // 2
        old = [index for index in flat if index >= failures]
        assert len(set(old)) == min(len(old), replay), "as many different old images as there can be"
        orders.append(flat)
        assert list(sampler) == drawn, "an epoch that is begun again is the same"
    assert len({tuple(order) for order in orders}) == 3
    assert len(seeds) == sum(len(order) for order in orders), "no augmentation comes twice"


def test_sampling_without_old_or_new_images_is_refused() -> None:
    with pytest.raises(TrainingError, match="got 0 and 3"):
        ReplaySampler(0, 3, 2, 0)
    with pytest.raises(TrainingError, match="got 3 and 0"):
        ReplaySampler(3, 0, 2, 0)


def test_samples_are_on_the_grid_in_the_network_s_own_ids(scenes: Path, labels: LabelSet) -> None:
    weights = CONFIGS / "mmseg" / "weights" / "scenes_fastscnn.safetensors"
    turned = tuple(reversed(labels.names))
    settings = ModelSettings(
        kind="mmseg", path=weights, config=scenes / "models" / "target.py", fit="keep", own_classes=turned
    )
    model = MmsegModel("target", settings, labels, GRID)
    table = own_ids(model)
    assert [int(table[k]) for k in range(8)] == [7, 6, 5, 4, 3, 2, 1, 0]
    assert (table[8:] == VOID).all()
    (sample,) = samples_of(scenes / "s0", "masks", 1)
    plain = SampleDataset([sample], GRID, table, lambda item: item)[Draw(0)]
    assert plain["img"].shape == (48, 64, 3)
    with Image.open(sample.truth.path) as mask:
        own = np.asarray(mask.resize((64, 48), Image.Resampling.NEAREST))
    frame = decode_frame(PoolImage("a", str(sample.image)), sample.image.read_bytes(), GRID)
    np.testing.assert_array_equal(plain["img"], frame.rgb[:, :, ::-1], "what models see")
    np.testing.assert_array_equal(plain["gt_seg_map"], 7 - own)


def test_a_mask_of_another_size_than_its_image_is_named(scenes: Path, tmp_path: Path) -> None:
    (sample,) = samples_of(scenes / "s0", "masks", 1)
    Image.fromarray(np.zeros((10, 20), np.uint8)).save(tmp_path / "small.png")
    dataset = SampleDataset(
        [replace(sample, truth=Truth(tmp_path / "small.png"))], GRID, np.arange(256, dtype=np.uint8), dict
    )
    with pytest.raises(TrainingError, match=r"small\.png is 20 x 10 pixels, its image .* 256 x 192"):
        dataset[Draw(0)]


def test_a_target_that_sees_stretched_images_is_trained_on_such(scenes: Path, labels: LabelSet) -> None:
    weights = CONFIGS / "mmseg" / "weights" / "scenes_fastscnn.safetensors"
    config = CONFIGS / "mmseg" / "scenes_fastscnn.py"
    settings = ModelSettings(kind="mmseg", path=weights, config=config, fit="stretch", input_size=(40, 72))
    model = MmsegModel("target", settings, labels, GRID)
    model.config.pop("train_pipeline", None)
    samples = samples_of(scenes / "s0", "masks", 2)
    dataset = SampleDataset(samples, GRID, own_ids(model), build_transforms(model, TrainingSettings()))
    for item in (dataset[Draw(0)], dataset[Draw(1)]):
        assert item["inputs"].shape == (3, 40, 72)
        assert item["data_samples"].gt_sem_seg.data.shape == (1, 40, 72)


def test_more_outputs_than_a_byte_counts_cannot_be_trained(scenes: Path, labels: LabelSet) -> None:
    weights = CONFIGS / "mmseg" / "weights" / "scenes_fastscnn.safetensors"
    settings = ModelSettings(kind="mmseg", path=weights, config=scenes / "models" / "target.py")
    model = MmsegModel("target", settings, labels, GRID)
    model.own_classes = tuple(f"class {n}" for n in range(256))
    with pytest.raises(TrainingError, match="has 256 outputs; at most 255 can be trained"):
        own_ids(model)


def noisy(item: dict[str, Any]) -> dict[str, Any]:
    """Draws from each of the generators that transforms draw from, and writes to what it is given."""
    item["img"][0] = 0
    return {
        "image": item["img"],
        "map": item["gt_seg_map"],
        "drawn": (random.random(), np.random.rand(), float(torch.rand(1))),  # noqa: NPY002
    }


def read_through(samples: list[Any], workers: int, cache_bytes: int) -> list[dict[str, Any]]:
    """All items of two epochs."""
    dataset = SampleDataset(samples, GRID, np.arange(256, dtype=np.uint8), noisy, cache_bytes)
    sampler = ReplaySampler(4, 2, 4, seed=4)
    items = []
    with batches(dataset, sampler, torch.device("cpu"), workers) as loader:
        for epoch in range(2):
            sampler.epoch = epoch
            items += [item for batch in loader for item in as_items(batch)]
    return items


def as_items(batch: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [
        {"image": i, "map": m, "drawn": d}
        for i, m, *d in zip(batch["image"], batch["map"], *batch["drawn"], strict=True)
    ]


def generator_states() -> list[Any]:
    numpy_state = np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    return [random.getstate(), numpy_state, torch.get_rng_state().tolist()]


def test_samples_are_the_same_from_memory_and_from_any_number_of_processes(scenes: Path) -> None:
    samples = samples_of(scenes / "s0", "masks", 6)
    wanted = read_through(samples, workers=0, cache_bytes=0)
    assert len({tuple(item["drawn"]) for item in wanted}) == len(wanted) == 16
    before = generator_states()
    few = 3 * 4 * 48 * 64 + 5
    for workers, cache_bytes in ((0, 1 << 20), (2, 0), (2, 1 << 20), (2, few)):
        found = read_through(samples, workers, cache_bytes)
        assert [item["drawn"] for item in found] == [item["drawn"] for item in wanted]
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one["image"], other["image"])
            np.testing.assert_array_equal(one["map"], other["map"])
    assert generator_states() == before


def test_what_is_decoded_once_is_read_from_memory_by_all_processes(scenes: Path, tmp_path: Path) -> None:
    (sample,) = samples_of(scenes / "s0", "masks", 1)
    copy = replace(sample, image=tmp_path / "image.jpg")
    copy.image.write_bytes(sample.image.read_bytes())
    dataset = SampleDataset([copy, copy], GRID, np.arange(256, dtype=np.uint8), dict, 1 << 20)
    with batches(dataset, ReplaySampler(1, 1, 2, seed=0), torch.device("cpu"), 2) as loader:  # type: ignore[arg-type]
        (first,) = loader
        copy.image.unlink()
        (second,) = loader
        for one, other in zip(first["img"], second["img"], strict=True):
            np.testing.assert_array_equal(one, other)
        assert dataset[Draw(1)]["img"].shape == (48, 64, 3)
    with pytest.raises(ImageError, match=r"image\.jpg"):
        dataset[Draw(1)]


def test_an_image_that_does_not_fit_into_memory_is_not_kept() -> None:
    cache = ImageCache(3, 4 * 20)
    image, label_map = np.arange(30, dtype=np.uint8).reshape(2, 5, 3), np.full((2, 5), 7, np.uint8)
    for index in (2, 0, 1):
        cache.put(index, image + index, label_map)
    cache.put(0, image + 9, label_map)
    assert cache.get(1) is None
    for index in (2, 0):
        kept = cache.get(index)
        assert kept
        np.testing.assert_array_equal(kept[0], image + index)
        np.testing.assert_array_equal(kept[1], label_map)
        kept[0][:] = 0
        again = cache.get(index)
        assert again
        assert again[0].any(), "what is given is a copy"


def test_one_process_reads_for_a_cpu_that_has_cores_to_spare() -> None:
    assert workers_for(torch.device("cpu")) == min(1, len(os.sched_getaffinity(0)) // 4)
    assert 1 <= workers_for(torch.device("cuda")) <= 4


def test_a_batch_comes_out_of_its_block_as_it_went_in() -> None:
    labels = torch.randint(0, 255, (1, 5, 7))
    batch = {
        "inputs": [torch.arange(30, dtype=torch.uint8).reshape(3, 2, 5).permute(1, 2, 0), torch.rand(2, 3)],
        "maps": [labels, labels - 1000, torch.zeros(0, dtype=torch.int64), np.arange(6.0).reshape(2, 3)],
        "others": ("name", None, torch.ones(3, dtype=torch.bfloat16), torch.tensor(True), np.empty((0, 4))),
    }
    packed = pack(batch)
    assert packed.block.is_shared()
    found = unpack(packed)
    assert torch.equal(found["others"][2], batch["others"][2])  # type: ignore[arg-type]
    assert found["others"][:2] == ("name", None)
    assert found["others"][4].shape == (0, 4)
    for one, other in zip(
        [*found["inputs"], *found["maps"][:3]], [*batch["inputs"], *batch["maps"][:3]], strict=True
    ):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
        one[...] = 0  # may be written to
    np.testing.assert_array_equal(found["maps"][3], batch["maps"][3])


def test_weights_are_the_same_whoever_reads_and_whatever_is_kept(
    model_of: Callable[[str], TorchModel], plan_of: Callable[..., RunPlan], tmp_path: Path
) -> None:
    """Of a network with dropout, which draws from the generator that a reader in this process would draw from."""
    digests = set()
    for workers, cache_bytes in ((0, 0), (2, 1 << 20)):
        model = model_of("mmseg")
        plan = plan_of(4, recipe="paper", epochs=2, workers=workers, cache_bytes=cache_bytes)
        train(model, 1e-3, plan, tmp_path / f"{workers}-{cache_bytes}")
        digests.add(b"".join(v.contiguous().numpy().tobytes() for v in model.module.state_dict().values()))
    assert len(digests) == 1


def test_accuracy_is_mmsegmentation_s_own() -> None:
    from mmseg.models.decode_heads import decode_head

    theirs = decode_head.accuracy
    logits, truth = torch.randn(2, 5, 8, 9), torch.randint(0, 5, (2, 8, 9))
    truth[:, :3] = VOID
    with quick_accuracy():
        assert decode_head.accuracy is not theirs
        for ignore in (VOID, 2):
            wanted = theirs(logits, truth.clamp(max=4), ignore_index=ignore)
            assert decode_head.accuracy(logits, truth.clamp(max=4), ignore_index=ignore) == pytest.approx(
                wanted
            )
        assert decode_head.accuracy(logits, truth, ignore_index=VOID).shape == (1,)
        assert len(decode_head.accuracy(logits, truth, (1, 2), ignore_index=VOID)) == 2
        nothing = torch.full_like(truth, VOID)
        assert decode_head.accuracy(logits, nothing, ignore_index=VOID) == pytest.approx(0.0, abs=1e-5)
    assert decode_head.accuracy is theirs


def test_decoded_images_are_kept_as_settings_say() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [cache_for(device, None) for device in (cpu, gpu)] == [32 << 20, 1 << 30]
    assert cache_for(cpu, 5) == 5
