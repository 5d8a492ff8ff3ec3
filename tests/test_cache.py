"""Prepared cases: found again, or made anew when anything changed; whole or not there."""

import errno
import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from unet3d_tutorial import cache
from unet3d_tutorial.cache import PreparedCases
from unet3d_tutorial.config import Config
from unet3d_tutorial.dataset import fixed_steps
from unet3d_tutorial.files.nifti import save_volume
from unet3d_tutorial.transforms import Compose, ConvertLabel, ExpandChannel, LoadData, Spacing
from unet3d_tutorial.volume import Volume


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    affine = np.diag([-2.0, 2.0, 3.0, 1.0])
    save_volume(
        Volume(rng.integers(-1000, 900, (12, 10, 8)).astype(np.int16), affine),
        tmp_path / "image.nii.gz",
    )
    save_volume(
        Volume(rng.integers(0, 7, (12, 10, 8)).astype(np.uint8), affine), tmp_path / "label.nii.gz"
    )
    return [(tmp_path / "image.nii.gz", tmp_path / "label.nii.gz")]


def steps(*more) -> Compose:
    return Compose([LoadData(), ConvertLabel(), ExpandChannel(), *more])


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def never(*_):
    raise AssertionError("prepared again")


def test_disk_and_memory_hold_the_same(files, tmp_path):
    coarse = steps(Spacing((3, 3, 3)))
    memory, disk = PreparedCases(files, coarse), PreparedCases(files, coarse, tmp_path / "c")
    for mine, other in zip(memory[0], disk[0], strict=True):
        assert np.array_equal(mine.array, other.array) and np.array_equal(mine.affine, other.affine)
    image, label = disk[0]
    assert (
        isinstance(image.array, np.memmap)
        and image.array.dtype == np.int16
        and label.array.dtype == np.uint8
    )
    with pytest.raises(ValueError, match="read-only"):
        image.array[0] = 0
    assert memory[0] is memory[0] and len(disk) == 1


def test_what_is_there_is_found_by_the_next_process(files, tmp_path, monkeypatch):
    first, _ = PreparedCases(files, steps(), tmp_path / "c")[0]
    monkeypatch.setattr(PreparedCases, "_prepare", never)
    again, _ = PreparedCases(files, steps(), tmp_path / "c")[0]
    assert np.array_equal(first.array, again.array)


def test_any_change_makes_a_new_entry(files, tmp_path, monkeypatch):
    folder = tmp_path / "c"
    image, label = files[0]
    PreparedCases(files, steps(), folder)[0]
    PreparedCases(files, steps(Spacing((3, 3, 3))), folder)[0]  # other steps
    PreparedCases(files, steps(Spacing((4, 3, 3))), folder)[0]  # other settings
    assert len(entries(folder)) == 3
    for path in (image, label):  # other content under the same name, of the same length and age
        data, age = bytearray(path.read_bytes()), path.stat().st_mtime_ns
        data[4] ^= 1  # the time in gzip's header: the voxels are the same, but who knows
        path.write_bytes(data)
        os.utime(path, ns=(age, age))
        PreparedCases(files, steps(), folder)[0]
    assert len(entries(folder)) == 5
    monkeypatch.setattr(cache, "version", lambda name: "0")  # other libraries
    PreparedCases(files, steps(), folder)[0]
    assert len(entries(folder)) == 6
    other = tmp_path / "transforms.py"
    other.write_text("# other code of the steps", encoding="utf-8")
    monkeypatch.setattr(cache, "source_files", lambda: [other])
    PreparedCases(files, steps(), folder)[0]
    assert len(entries(folder)) == 7


def test_all_code_that_prepares_a_case_is_part_of_the_recipe(files):
    """Wherever a function moves, its file must be one of those that are hashed."""
    ran = set()

    def note(frame, event, argument):
        ran.add(frame.f_code.co_filename)

    config = Config.preset("quick")
    rng = np.random.default_rng(0)
    label = rng.integers(3, 6, (12, 10, 8)).astype(np.uint8)
    save_volume(Volume(label, np.diag([-2.0, 2.0, 3.0, 1.0])), files[0][1])
    cases = PreparedCases(files, fixed_steps(config))
    sys.setprofile(note)
    try:
        cases[0]
    finally:
        sys.setprofile(None)
    ours = {Path(name) for name in ran if Path(name).is_relative_to(cache.PACKAGE)}
    assert Path(cache.__file__) in ours and ours <= set(cache.source_files())
    names = {path.relative_to(cache.PACKAGE).parts[0] for path in cache.source_files()}
    assert names == {
        name if (cache.PACKAGE / name).is_dir() else f"{name}.py" for name in cache.SOURCES
    }


def test_a_full_disk_leaves_nothing(files, tmp_path, monkeypatch):
    def full(path, array):
        path.write_bytes(b"half")
        if "label" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(
        OSError,
        match=r"cannot write the prepared image.nii.gz there: .*No space left.*data.cache_path",
    ):
        PreparedCases(files, steps(), tmp_path / "c")[0]
    assert entries(tmp_path / "c") == []


def _fill(files, folder, results):
    results.put(int(PreparedCases(files, steps(), folder)[0][0].array.sum()))


def test_processes_may_fill_one_folder_together(files, tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [
        context.Process(target=_fill, args=(files, tmp_path / "c", results)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    found = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert len(found) == 1 and len(entries(tmp_path / "c")) == 1


def test_huge_values_do_not_wrap_around(tmp_path):
    array = np.full((4, 4, 4), 1e6, np.float32)
    save_volume(Volume(array, np.eye(4)), tmp_path / "i.nii.gz")
    save_volume(Volume(np.zeros((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "l.nii.gz")
    image, _ = PreparedCases([(tmp_path / "i.nii.gz", tmp_path / "l.nii.gz")], steps())[0]
    assert image.array.min() == 32767
