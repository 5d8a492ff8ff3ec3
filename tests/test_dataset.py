"""The data set: matching pairs, samples by seed and number alone, batches of the right shape."""

import copy
import re
import shutil
import tracemalloc

import numpy as np
import pytest

from unet3d_tutorial.config import Config
from unet3d_tutorial.dataset import (
    TrainingCrops,
    check_cases,
    create_dataset,
    list_cases,
    plain_error,
    random_steps,
    validation_cases,
)
from unet3d_tutorial.files.nifti import load_volume, save_volume
from unet3d_tutorial.transforms import RandomCropSamples
from unet3d_tutorial.volume import BadScanError, Volume

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
        {
            "data": {"data_path": str(folder), "roi_size": ROI, "spacing_mm": (3, 3, 3)},
            "inference": {"roi_size": ROI},
            "train": {"epoch_size": 2, "batch_size": 2},
        }
    )


def test_masks_of_classes_are_refused_by_name(config, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "data")
    config = config.updated({"data": {"data_path": str(tmp_path / "data")}})
    for split in ("train", "val"):
        for path in (tmp_path / "data" / split / "seg").iterdir():
            label = load_volume(path)
            save_volume(Volume(label.array % 4, label.affine), path)
    with pytest.raises(
        BadScanError,
        match="train/seg/[0-3].nii.gz: expected label values from 3 to 5, found the classes",
    ):
        TrainingCrops(list_cases(tmp_path / "data" / "train"), config)[0]
    with pytest.raises(
        BadScanError, match="val/seg/0.nii.gz: expected label values from 3 to 5, found the classes"
    ):
        list(validation_cases(config))


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


class Spy:
    """Prepared cases that write down which were asked for."""

    def __init__(self, prepared):
        self.prepared, self.visited = prepared, []

    def __len__(self):
        return len(self.prepared)

    def __getitem__(self, number):
        self.visited.append(number)
        return self.prepared[number]


def test_every_epoch_visits_every_volume_once(config, folder):
    source = TrainingCrops(list_cases(folder / "train"), config)
    source.prepared = Spy(source.prepared)
    for index in range(len(source)):
        source[index]
    visited = source.prepared.visited
    assert sorted(visited[:4]) == sorted(visited[4:]) == [0, 1, 2, 3] and visited[:4] != visited[4:]


def run(config, **ranks) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(
        create_dataset(config, **ranks).create_tuple_iterator(output_numpy=True, num_epochs=1)
    )


def test_workers_change_nothing(config):
    """Threads and processes give the batches of one worker, in the same order: the case's repeated
    crops cannot return.
    """
    alone = run(config)
    for settings in ({"num_worker": 2}, {"num_worker": 2, "worker_processes": True}):
        together = run(config.updated({"data": settings}))
        assert len(together) == len(alone)
        for batch, same in zip(alone, together, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(batch, same, strict=True))
    crops = [crop.tobytes() for image, _ in together for crop in image]
    assert len(set(crops)) == len(crops) == 8


def test_workers_that_share_a_seed_repeat_their_crops():
    """The original case's bug, so that the test above is known to look for what exists."""
    workers = [copy.deepcopy(RandomCropSamples(ROI, seed=0)) for _ in range(4)]
    corners = [tuple(worker.draw((99, 99, 99))[0]) for _ in range(3) for worker in workers]
    assert len(set(corners)) == 3


@pytest.mark.parametrize("rank_size", [2, 3])
def test_devices_share_the_samples(config, folder, rank_size):
    """No sample twice, equally many for all; step by step they do what one device with a larger
    batch would do.
    """
    config = config.updated({"train": {"batch_size": 1}})
    whole = TrainingCrops(list_cases(folder / "train"), config)
    shares = [run(config, rank_size=rank_size, rank_id=rank) for rank in range(rank_size)]
    assert {len(share) for share in shares} == {8 // rank_size}
    for step, batches in enumerate(zip(*shares, strict=True)):
        for rank, (image, label) in enumerate(batches):
            expected = whole[step * rank_size + rank]
            assert np.array_equal(image, expected[0]) and np.array_equal(label, expected[1])
    with pytest.raises(ValueError, match="rank_id: expected 0 to 1, found 2"):
        create_dataset(config, rank_size=2, rank_id=2)


EVERYTHING = {
    "low_resolution": True,
    "mirror": True,
    "deform": True,
    "foreground": 0.5,
    "num_samples": 2,
}


@pytest.mark.parametrize("crop_first", [False, True])
def test_all_variations_together(config, folder, crop_first):
    config = config.updated({"data": {**EVERYTHING, "crop_first": crop_first}})
    cases = list_cases(folder / "train")
    first, again = TrainingCrops(cases, config), TrainingCrops(cases, config)
    for index in (3, 0):
        image, label = first[index]
        assert (
            image.shape == (2, 2, *ROI)
            and label.shape == (2, 4, *ROI)
            and image.dtype == np.float32
        )
        assert np.array_equal(label.sum(axis=1), np.ones((2, *ROI))) and np.isfinite(image).all()
        assert not np.array_equal(image[0], image[1])
        assert np.array_equal(image, again[index][0]) and np.array_equal(label, again[index][1])


def test_extra_variation_is_off_unless_asked_for():
    names = [type(step).__name__ for step in random_steps(Config.preset("quick")).steps]
    assert names == [
        "RandomBlur",
        "RandomShift",
        "RandomNoise",
        "ScaleIntensityRange",
        "RandomGamma",
        "AddPosition",
        "RandomCropSamples",
        "OneHot",
    ]


def test_a_disk_cache_changes_nothing(config, folder, tmp_path):
    cases = list_cases(folder / "train")
    memory = TrainingCrops(cases, config)
    for _ in range(2):  # written, then found
        disk = TrainingCrops(
            cases, config.updated({"data": {"cache_path": str(tmp_path / "prepared")}})
        )
        for index in range(4):
            assert all(
                np.array_equal(a, b) for a, b in zip(memory[index], disk[index], strict=True)
            )
    assert len(list((tmp_path / "prepared").iterdir())) == 4


def test_crops_from_disk_take_little_memory(tmp_path):
    """Cut from a mapped scan, a crop must cost a few times its own size, not the scan's."""
    rng = np.random.default_rng(0)
    for kind, dtype in (("image", np.int16), ("seg", np.uint8)):
        volume = Volume(rng.integers(0, 6, (160, 160, 160)).astype(dtype), np.eye(4))
        save_volume(volume, tmp_path / "train" / kind / "0.nii.gz")
    config = Config.preset("luna16").updated(
        {
            "data": {
                "data_path": str(tmp_path),
                "cache_path": str(tmp_path / "prepared"),
                "roi_size": (16, 16, 16),
            }
        }
    )
    source = TrainingCrops(list_cases(tmp_path / "train"), config)
    sample = sum(array.nbytes for array in source[0])
    tracemalloc.start()
    for index in range(1, 8):
        source[index]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * sample < 160**3 / 3


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
            assert np.array_equal(image[place], expected[0][0]) and np.array_equal(
                label[place], expected[1][0]
            )


def test_several_crops_of_a_volume_become_one_batch(config):
    batch = next(
        create_dataset(config.override(["data.num_samples=3"])).create_tuple_iterator(
            output_numpy=True
        )
    )
    assert batch[0].shape == (6, 2, *ROI) and len({crop.tobytes() for crop in batch[0]}) == 6


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


@pytest.mark.parametrize("worker_processes", [False, True])
def test_a_broken_scan_is_named(config, folder, tmp_path, worker_processes):
    shutil.copytree(folder, tmp_path / "data")
    broken = tmp_path / "data" / "train" / "image" / "2.nii.gz"
    broken.write_bytes(broken.read_bytes()[:2000])
    config = config.updated(
        {
            "data": {
                "data_path": str(tmp_path / "data"),
                "num_worker": 2,
                "worker_processes": worker_processes,
            }
        }
    )
    with pytest.raises(RuntimeError, match="train/image/2.nii.gz"):
        run(config)


def test_what_mindspore_says_of_a_broken_scan_is_cut_down_to_what_was_raised(
    config, folder, tmp_path
):
    shutil.copytree(folder, tmp_path / "data")
    broken = tmp_path / "data" / "train" / "image" / "2.nii.gz"
    broken.write_bytes(broken.read_bytes()[:2000])
    for processes in (False, True):
        settings = config.updated(
            {
                "data": {
                    "data_path": str(tmp_path / "data"),
                    "num_worker": 2,
                    "worker_processes": processes,
                }
            }
        )
        with pytest.raises(RuntimeError) as caught:
            run(settings)
        plain = plain_error(caught.value)
        assert isinstance(plain, BadScanError)
        assert re.fullmatch(rf"{re.escape(str(broken))} cannot be read .*again", str(plain))
    assert plain_error(RuntimeError("the device is on fire")) is None


@pytest.mark.parametrize(
    ("split", "kind", "change", "message"),
    [
        ("train", "image", lambda data: data[:-10], "cannot be read as NIfTI"),
        ("val", "seg", lambda data: data[:200], "cannot be read as NIfTI|cut short"),
        ("val", "image", lambda _: b"", "expected NIfTI"),
        ("train", "seg", lambda _: b"text", "expected NIfTI"),
        ("train", "seg", None, r"expected .*image/1.nii.gz's shape .*, found \(4, 5, 6\)"),
        (
            "val",
            "seg",
            np.diag([2.0, 2, 2, 1]),
            "expected .*val/image/1.nii.gz's affine .*, found a grid [0-9.]+ mm away",
        ),
    ],
)
def test_files_are_looked_at_before_the_run(config, folder, tmp_path, split, kind, change, message):
    shutil.copytree(folder, tmp_path / "data")
    config = config.updated({"data": {"data_path": str(tmp_path / "data")}})
    check_cases(config)
    path = tmp_path / "data" / split / kind / "1.nii.gz"
    if callable(change):
        path.write_bytes(change(path.read_bytes()))
    elif change is None:
        save_volume(Volume(np.zeros((4, 5, 6), np.uint8), np.eye(4)), path)
    else:
        save_volume(Volume(load_volume(path).array, change), path)
    with pytest.raises(BadScanError, match=f"{split}/{kind}/1.nii.gz.*({message})") as caught:
        check_cases(config)
    assert len(str(caught.value).splitlines()) == 1
