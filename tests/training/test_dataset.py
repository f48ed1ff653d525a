"""Training samples: half S, half S(0), on the grid, in the network's own ids."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mad_backend.core.grid import Grid
from mad_backend.core.labels import VOID, LabelSet
from mad_backend.errors import TrainingError
from mad_backend.models.mmseg_model import MmsegModel
from mad_backend.settings import ModelSettings, TrainingSettings
from mad_backend.settings_file import load_label_set
from tests.training.conftest import CONFIGS, samples_of
from training.dataset import ReplaySampler, SampleDataset
from training.trainable import build_transforms, own_ids

GRID = Grid(64)


@pytest.fixture(scope="module")
def labels() -> LabelSet:
    return load_label_set(CONFIGS / "label_sets" / "scenes.yaml")


@pytest.mark.parametrize(("failures", "replay", "batch_size"), [(6, 10, 2), (7, 3, 4), (1, 20, 2), (5, 2, 8)])
def test_batches_are_half_new_and_half_old_and_an_epoch_is_one_pass_over_s(
    failures: int, replay: int, batch_size: int
) -> None:
    sampler = ReplaySampler(failures, replay, batch_size, seed=4)
    orders = []
    for epoch in range(3):
        sampler.epoch = epoch
        batches = list(sampler)
        assert len(batches) == len(sampler) == -(-failures // (batch_size // 2))
        for batch in batches:
            assert len(batch) == batch_size
            assert sum(index < failures for index in batch) == batch_size // 2
        flat = [index for batch in batches for index in batch]
        seen = [index for index in flat if index < failures]
        assert set(seen) == set(range(failures))
        assert len(seen) - failures < batch_size // 2
        old = [index for index in flat if index >= failures]
        assert len(set(old)) == min(len(old), replay), "as many different old images as there can be"
        orders.append(flat)
        assert [index for batch in sampler for index in batch] == flat
    assert len({tuple(order) for order in orders}) == 3


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
    plain = SampleDataset([sample], GRID, table, lambda item: item)[0]
    assert plain["img"].shape == (48, 64, 3)
    with Image.open(sample.image) as image, Image.open(sample.mask) as mask:
        rgb = np.asarray(image.convert("RGB").resize((64, 48), Image.Resampling.BILINEAR))
        own = np.asarray(mask.resize((64, 48), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(plain["img"], rgb[:, :, ::-1])
    np.testing.assert_array_equal(plain["gt_seg_map"], 7 - own)


def test_a_mask_of_another_size_than_its_image_is_named(scenes: Path, tmp_path: Path) -> None:
    (sample,) = samples_of(scenes / "s0", "masks", 1)
    Image.fromarray(np.zeros((10, 20), np.uint8)).save(tmp_path / "small.png")
    dataset = SampleDataset(
        [replace(sample, mask=tmp_path / "small.png")], GRID, np.arange(256, dtype=np.uint8), dict
    )
    with pytest.raises(TrainingError, match=r"small\.png is 20 x 10 pixels, its image .* 256 x 192"):
        dataset[0]


def test_a_target_that_sees_stretched_images_is_trained_on_such(scenes: Path, labels: LabelSet) -> None:
    weights = CONFIGS / "mmseg" / "weights" / "scenes_fastscnn.safetensors"
    config = CONFIGS / "mmseg" / "scenes_fastscnn.py"
    settings = ModelSettings(kind="mmseg", path=weights, config=config, fit="stretch", input_size=(40, 72))
    model = MmsegModel("target", settings, labels, GRID)
    model.config.pop("train_pipeline", None)
    samples = samples_of(scenes / "s0", "masks", 2)
    for item in SampleDataset(samples, GRID, own_ids(model), build_transforms(model, TrainingSettings())):
        assert item["inputs"].shape == (3, 40, 72)
        assert item["data_samples"].gt_sem_seg.data.shape == (1, 40, 72)


def test_more_outputs_than_a_byte_counts_cannot_be_trained(scenes: Path, labels: LabelSet) -> None:
    weights = CONFIGS / "mmseg" / "weights" / "scenes_fastscnn.safetensors"
    settings = ModelSettings(kind="mmseg", path=weights, config=scenes / "models" / "target.py")
    model = MmsegModel("target", settings, labels, GRID)
    model.own_classes = tuple(f"class {n}" for n in range(256))
    with pytest.raises(TrainingError, match="has 256 outputs; at most 255 can be trained"):
        own_ids(model)
