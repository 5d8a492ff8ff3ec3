"""The data set: pairs that belong together, samples that depend on seed and number alone, batches of the right shape."""

import numpy as np
import pytest

from unet3d_tutorial.config import Config
from unet3d_tutorial.dataset import TrainingCrops, create_dataset, list_cases, validation_cases
from unet3d_tutorial.volume import Volume, save_volume

ROI = (32, 16, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    affine = np.diag([-3.0, -3.0, 3.0, 1.0])
    for split, count in (("train", 4), ("val", 2)):
        for number in range(count):
            image = rng.integers(-1000, 200, (40, 20, 18)).astype(np.int16)
            label = rng.integers(0, 7, (40, 20, 18)).astype(np.uint8)
            save_volume(Volume(image, affine), folder / split / "image" / f"{number}.nii.gz")
            save_volume(Volume(label, affine), folder / split / "seg" / f"{number}.nii.gz")
    return folder


@pytest.fixture
def config(folder):
    return Config.preset("quick").updated(
        {"data": {"data_path": str(folder), "roi_size": ROI, "spacing_mm": (3, 3, 3)}, "inference": {"roi_size": ROI},
         "train": {"epoch_size": 2, "batch_size": 2}})


def test_a_sample_depends_on_seed_and_number_alone(config, folder):
    cases = list_cases(folder / "train")
    forward, backward = TrainingCrops(cases, config), TrainingCrops(cases, config)
    first = [forward[i] for i in range(len(forward))]
    second = [backward[i] for i in reversed(range(len(backward)))][::-1]
    for (image, label), (same_image, same_label) in zip(first, second, strict=True):
        assert np.array_equal(image, same_image) and np.array_equal(label, same_label)
    images = [image.tobytes() for image, _ in first]
    assert len(set(images)) == len(images) == 8  # no crop repeats, in either epoch
    other = TrainingCrops(cases, config.override(["train.seed=2"]))[0][0]
    assert not np.array_equal(other, first[0][0])


def test_every_epoch_visits_every_volume_once(config, folder):
    source = TrainingCrops(list_cases(folder / "train"), config)
    visited = []
    source._case = lambda number, case=source._case: visited.append(number) or case(number)
    for index in range(len(source)):
        source[index]
    assert sorted(visited[:4]) == sorted(visited[4:]) == [0, 1, 2, 3] and visited[:4] != visited[4:]


def test_batches_are_the_samples_in_order(config, folder):
    source = TrainingCrops(list_cases(folder / "train"), config)
    batches = list(create_dataset(config).create_tuple_iterator(output_numpy=True, num_epochs=1))
    assert len(batches) == create_dataset(config).get_dataset_size() == 4
    for number, (image, label) in enumerate(batches):
        assert image.shape == (2, 2, *ROI) and label.shape == (2, 4, *ROI)
        assert image.dtype == label.dtype == np.float32
        assert (label.sum(axis=1) == 1).all()
        for place in range(2):
            expected = source[2 * number + place]
            assert np.array_equal(image[place], expected[0][0]) and np.array_equal(label[place], expected[1][0])


def test_several_crops_of_a_volume_become_one_batch(config):
    batch = next(create_dataset(config.override(["data.num_samples=3"])).create_tuple_iterator(output_numpy=True))
    assert batch[0].shape == (6, 2, *ROI) and len({crop.tobytes() for crop in batch[0]}) == 6


def test_processes_of_a_group_see_different_samples(config):
    shards = [create_dataset(config.override(["train.batch_size=1"]), rank_size=2, rank_id=rank) for rank in (0, 1)]
    seen = [{image.tobytes() for image, _ in shard.create_tuple_iterator(output_numpy=True, num_epochs=1)}
            for shard in shards]
    assert len(seen[0]) == len(seen[1]) == 4 and not seen[0] & seen[1]


def test_validation_volumes_come_whole_and_unvaried(config):
    cases = list(validation_cases(config))
    assert [name for name, _, _ in cases] == ["0", "1"]
    for (_, image, label), (_, again, _) in zip(cases, validation_cases(config), strict=True):
        assert image.array.shape == (2, 40, 20, 18) and label.array.shape == (1, 40, 20, 18)
        assert np.array_equal(image.array, again.array) and label.array.max() == 3


def test_lonely_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="image: expected .nii.gz files, found none"):
        list_cases(tmp_path)
    volume = Volume(np.zeros((4, 4, 4), np.int16), np.eye(4))
    save_volume(volume, tmp_path / "image" / "a.nii.gz")
    with pytest.raises(FileNotFoundError, match="seg/a.nii.gz is missing"):
        list_cases(tmp_path)
    save_volume(volume, tmp_path / "seg" / "a.nii.gz")
    save_volume(volume, tmp_path / "seg" / "b.nii.gz")
    with pytest.raises(FileNotFoundError, match="image/b.nii.gz is missing"):
        list_cases(tmp_path)
