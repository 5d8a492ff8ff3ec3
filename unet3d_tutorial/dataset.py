"""Batches for training: which volumes, in what order, and how they are cropped and augmented.

One seed determines all of this.
"""

import unet3d_tutorial.environment  # noqa: F401

import copy
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import mindspore.dataset as ds
import numpy as np

from .augment import (
    RandomAffine,
    RandomBlur,
    RandomElastic,
    RandomFlip,
    RandomGamma,
    RandomLowResolution,
    RandomNoise,
    RandomShift,
)
from .cache import PreparedCases
from .config import Config, DataConfig
from .files.nifti import check_file
from .files.whole import is_temporary
from .transforms import (
    AddPosition,
    CenterCrop,
    CenterOnBody,
    Compose,
    ConvertLabel,
    LoadData,
    OneHot,
    Pad,
    Pair,
    RandomCropSamples,
    ScaleIntensityRange,
    convert_files,
    grid_steps,
    input_steps,
)
from .volume import BadScanError, Volume, check_same_grid

CaseFiles: TypeAlias = tuple[Path, Path]  #: image and label file
Crops: TypeAlias = tuple[np.ndarray, np.ndarray]  #: image and one-hot label
Step: TypeAlias = Callable[..., Pair]

#: what reading and preparing a scan may raise, by name
READING_ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (BadScanError, ValueError, FileNotFoundError, PermissionError, OSError)
}
#: rows that each stage of MindSpore's pipeline prefetches; with large crops, its default of 16
#: would take gigabytes
PREFETCHED_ROWS = 2

# ------------------------------------------------------------------------------------------- files


def list_cases(folder: str | Path) -> list[CaseFiles]:
    """Pairs of image and label file in ``folder/{image,seg}``, sorted by name.

    Raises ``FileNotFoundError`` if there are none, or if an image or a label has no counterpart.
    """
    images = _scans_by_name(Path(folder) / "image")
    labels = _scans_by_name(Path(folder) / "seg")
    if not images:
        raise FileNotFoundError(f"{Path(folder) / 'image'}: expected .nii.gz files, found none")
    unpaired = sorted(images.keys() ^ labels.keys())
    if unpaired:
        lacking = "seg" if unpaired[0] in images else "image"
        raise FileNotFoundError(
            f"{Path(folder) / lacking / unpaired[0]} is missing; "
            "image and seg must hold files of the same names"
        )
    return [(images[name], labels[name]) for name in images]


def _scans_by_name(folder: Path) -> dict[str, Path]:
    paths = sorted(folder.glob("*.nii.gz"))
    return {path.name: path for path in paths if not is_temporary(path)}


def training_cases(config: Config) -> list[CaseFiles]:
    """The files that a run trains on."""
    return list_cases(Path(config.data.data_path) / "train")


def check_cases(config: Config) -> None:
    """Check header and length of every file of a training run, before the run starts.

    Raises ``FileNotFoundError`` or :class:`~unet3d_tutorial.volume.BadScanError`, naming the file,
    if a file is missing, truncated or not a 3-D volume, or if a label is not on the grid of its
    image.
    """
    for split in ("train", "val"):
        for image, label in list_cases(Path(config.data.data_path) / split):
            check_same_grid(label, check_file(label), image, check_file(image))


def plain_error(error: RuntimeError) -> Exception | None:
    """The original error of a data worker, found in MindSpore's long message; or ``None``.

    MindSpore passes on a Python error only as text with its traceback, from every thread and
    process.
    """
    kinds = "|".join(READING_ERRORS)
    lines = re.findall(rf"^(?:[\w.]*\.)?({kinds}): (.+)$", str(error), re.MULTILINE)
    if not lines:
        return None
    kind, message = lines[-1]
    return READING_ERRORS[kind](message)


# ------------------------------------------------------------------------------------------- steps


def fixed_steps(config: Config) -> Compose:
    """The deterministic steps, from files to volumes on the working grid.

    The image becomes ``(1, I, J, K)`` in HU, the label ``(1, I, J, K)`` with class numbers.
    """
    data = config.data
    convert = ConvertLabel(data.lower_limit, data.upper_limit)
    return Compose([LoadData(), convert, *grid_steps(data), Pad(data.roi_size), CenterOnBody()])


def random_steps(config: Config) -> Compose:
    """The random steps, from the working grid to the network's input.

    They give images ``(S, C, *roi_size)`` and one-hot labels ``(S, K, *roi_size)`` for S crops. By
    default the whole scan is augmented, and ``num_samples`` crops are cut from it. With
    ``data.crop_first``, one crop is cut and then augmented, which is less work for large scans; if
    it will be rotated or deformed, it is cut larger first and cropped to size afterwards.
    """
    data = config.data
    intensity = _intensity_steps(data)
    spatial: list[Step] = []
    if data.mirror:
        spatial.append(RandomFlip())
    if data.deform:
        spatial += [RandomAffine(), RandomElastic()]
    one_hot = OneHot(config.model.num_classes)

    if not data.crop_first:
        crop = RandomCropSamples(data.roi_size, data.num_samples, foreground=data.foreground)
        return Compose([*spatial, *intensity, crop, one_hot])

    size = [math.ceil(1.25 * n) for n in data.roi_size] if data.deform else data.roi_size
    crop = RandomCropSamples(size, foreground=data.foreground)
    return Compose([crop, *spatial, CenterCrop(data.roi_size), *intensity, one_hot])


def _intensity_steps(data: DataConfig) -> list[Step]:
    """From HU to the network's input, including the augmentation of intensities."""
    steps: list[Step] = [ScaleIntensityRange(data.min_val, data.max_val)]
    if data.augment:
        steps = [RandomBlur(), RandomShift(), RandomNoise(), *steps, RandomGamma()]
    if data.low_resolution:
        steps = [RandomLowResolution(), *steps]
    if data.position:
        steps = [*steps, AddPosition(jitter=data.augment)]
    return steps


# ----------------------------------------------------------------------------------------- samples


class TrainingCrops:
    """Random-access source of the training samples of a whole run, epoch after epoch.

    Sample ``i`` of the run depends only on ``train.seed`` and ``i``. It is therefore the same in
    every thread and process, and in any order. Of ``rank_size`` devices, device ``rank_id`` gets
    samples ``rank_id``, ``rank_id + rank_size`` and so on; all get the same number. Each volume is
    read and brought to the working grid once (:class:`PreparedCases`).
    """

    def __init__(
        self,
        cases: list[CaseFiles],
        config: Config,
        *,
        rank_size: int = 1,
        rank_id: int = 0,
    ) -> None:
        if not 0 <= rank_id < rank_size:
            raise ValueError(f"rank_id: expected 0 to {rank_size - 1}, found {rank_id}")
        self.seed = config.train.seed
        self.epochs = config.train.epoch_size
        self.rank_size = rank_size
        self.rank_id = rank_id
        self.prepared = PreparedCases(cases, fixed_steps(config), config.data.cache_path)
        self.random_steps = random_steps(config)
        # With crop_first the random steps give one crop, so they run once for each crop.
        self.rounds = config.data.num_samples if config.data.crop_first else 1

    def __len__(self) -> int:
        return len(self.prepared) * self.epochs // self.rank_size

    def __getitem__(self, index: int) -> Crops:
        """Image ``(S, C, *roi_size)`` and one-hot label ``(S, K, *roi_size)``, float32.

        They are S crops of one volume.
        """
        number = int(index) * self.rank_size + self.rank_id
        image, label = self.prepared[self._case_of(number)]
        images, labels = [], []
        for round_number in range(self.rounds):
            steps = copy.deepcopy(self.random_steps)
            steps.set_random_state(self._seed(number, round_number))
            image_crops, label_crops = steps(image, label)
            assert label_crops is not None  # a label went in
            images.append(image_crops.array)
            labels.append(label_crops.array)
        if self.rounds == 1:
            return images[0], labels[0]
        return np.concatenate(images), np.concatenate(labels)

    def name(self, number: int) -> str:
        """File name of the volume that a sample is cut from.

        ``number`` counts the samples of the whole run, over all devices.
        """
        image, _ = self.prepared.files[self._case_of(number)]
        return image.name

    def _seed(self, number: int, round_number: int) -> list[int]:
        if round_number == 0:
            return [self.seed, number]
        # To NumPy, [1, 2] and [1, 2, 0] are the same seed, and Compose appends the step's number.
        # The final 1 makes sure that no two crops get the same seed.
        return [self.seed, number, round_number, 1]

    def _case_of(self, number: int) -> int:
        """The index of a sample's volume; each epoch visits all volumes in a new random order."""
        epoch, position = divmod(number, len(self.prepared))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.prepared))
        return int(order[position])


class SampleRange:
    """Samples ``first`` to ``last`` of a source, excluding ``last``."""

    def __init__(self, source: TrainingCrops, first: int, last: int) -> None:
        self.source = source
        self.first = first
        self.last = last

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> Crops:
        return self.source[self.first + int(index)]


# ----------------------------------------------------------------------------------------- batches


def samples_per_step(config: Config, rank_size: int = 1) -> int:
    """Number of volumes that all processes together use in one step."""
    return config.train.batch_size * config.train.accumulate * rank_size


def count_steps(config: Config, *, rank_size: int = 1) -> int:
    """Number of steps of a training run.

    Each step takes ``batch_size * accumulate`` volumes in every process; a remainder is dropped.
    """
    volumes = len(training_cases(config)) * config.train.epoch_size
    return volumes // samples_per_step(config, rank_size)


def batch_names(config: Config, step: int, *, rank_size: int = 1, rank_id: int = 0) -> list[str]:
    """File names of the volumes that process ``rank_id`` of ``rank_size`` uses in a step."""
    source = TrainingCrops(training_cases(config), config)
    count = samples_per_step(config, rank_size)
    numbers = range(step * count + rank_id, (step + 1) * count, rank_size)
    return [source.name(number) for number in numbers]


def create_dataset(
    config: Config, *, rank_size: int = 1, rank_id: int = 0, first_step: int = 0
) -> ds.GeneratorDataset:
    """MindSpore dataset over all steps of a training run, or over those from ``first_step`` on.

    One pass gives every batch of every epoch: ``image (N, C, D, H, W)`` and
    ``label (N, K, D, H, W)``, float32, where N is ``batch_size * num_samples``. An incomplete last
    step is dropped. Each of ``rank_size`` processes sees every ``rank_size``-th sample; together
    they see what one process with larger batches would see. The batches do not depend on
    ``data.num_worker``. Only a few are made ahead of time, so memory stays bounded.
    """
    crops = TrainingCrops(training_cases(config), config, rank_size=rank_size, rank_id=rank_id)
    count = samples_per_step(config)
    last_step = count_steps(config, rank_size=rank_size)
    ds.config.set_prefetch_size(PREFETCHED_ROWS)  # for all data sets of this process
    dataset = ds.GeneratorDataset(
        SampleRange(crops, first_step * count, last_step * count),
        ["image", "label"],
        shuffle=False,
        # MindSpore refuses more than there are cores.
        num_parallel_workers=min(config.data.num_worker, os.cpu_count() or 1),
        python_multiprocessing=config.data.worker_processes,
    )
    dataset = dataset.batch(config.train.batch_size, drop_remainder=True)
    for column in ("image", "label"):
        dataset = dataset.map(_join_samples, [column], num_parallel_workers=1)
    return dataset


def _join_samples(batch: np.ndarray) -> np.ndarray:
    """``(volumes, crops of each, ...)`` to ``(N, ...)``."""
    return batch.reshape(-1, *batch.shape[2:])


def validation_cases(config: Config) -> Iterator[tuple[str, Volume, Volume]]:
    """Yield name, network input and label of every validation volume, on the working grid.

    The input is ``(C, I, J, K)``; the label is ``(1, I, J, K)`` with class numbers.
    """
    prepare = fixed_steps(config).steps
    steps = Compose([*prepare, Pad(config.inference.roi_size), *input_steps(config.data)])
    for image_path, label_path in list_cases(Path(config.data.data_path) / "val"):
        image, label = convert_files(steps, image_path, label_path)
        assert label is not None  # each case has its label file
        yield image_path.name.removesuffix(".nii.gz"), image, label
