"""Batches for training: which volumes, in what order, cut and varied how, all decided by one seed."""

import unet3d_tutorial.environment  # noqa: F401

import copy
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

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
from .transforms import (
    AddPosition,
    CenterCrop,
    CenterOnBody,
    Compose,
    ConvertLabel,
    LoadData,
    OneHot,
    Pad,
    RandomCropSamples,
    ScaleIntensityRange,
    convert_files,
    grid_steps,
    input_steps,
)
from .volume import BadScanError, Volume, check_same_grid

#: what reading and preparing a scan may raise, by name
PLAIN = {
    kind.__name__: kind
    for kind in (BadScanError, ValueError, FileNotFoundError, PermissionError, OSError)
}
#: rows that each of MindSpore's stages holds ready; its own default of 16 is gigabytes of large
#: crops
AHEAD = 2


def list_cases(folder: str | Path) -> list[tuple[Path, Path]]:
    """Pairs of image and label file in ``folder/{image,seg}``, sorted by name.

    Raises ``FileNotFoundError`` if there are none, or an image or a label stands alone.
    """
    images, labels = (
        {
            path.name: path
            for path in sorted((Path(folder) / kind).glob("*.nii.gz"))
            if not path.name.endswith(".part.nii.gz")
        }
        for kind in ("image", "seg")
    )
    if not images:
        raise FileNotFoundError(f"{Path(folder) / 'image'}: expected .nii.gz files, found none")
    if lonely := sorted(images.keys() ^ labels.keys()):
        missing = Path(folder) / ("seg" if lonely[0] in images else "image") / lonely[0]
        raise FileNotFoundError(
            f"{missing} is missing; image and seg must hold files of the same names"
        )
    return [(images[name], labels[name]) for name in images]


def check_cases(config: Config) -> None:
    """Look at the header and the length of every file of a training run, before the run costs
    anything.

    Raises ``FileNotFoundError`` or :class:`~unet3d_tutorial.volume.BadScanError`, naming the file,
    if one is missing or cut short, is no 3-D volume, or if a label does not lie on its image's
    grid.
    """
    for split in ("train", "val"):
        for image, label in list_cases(Path(config.data.data_path) / split):
            check_same_grid(label, check_file(label), image, check_file(image))


def plain_error(error: RuntimeError) -> Exception | None:
    """What MindSpore's many lines about an error in the pipeline are about: the error that a sample
    raised, or ``None``.

    MindSpore gives a Python error on as text only, with its traceback, whatever thread or process
    it happened in.
    """
    found = re.findall(rf"^(?:[\w.]*\.)?({'|'.join(PLAIN)}): (.+)$", str(error), re.MULTILINE)
    return PLAIN[found[-1][0]](found[-1][1]) if found else None


def fixed_steps(config: Config) -> Compose:
    """The steps that give the same result each time: files to ``(1, I, J, K)`` HU and class numbers
    on the working grid.
    """
    data = config.data
    convert = ConvertLabel(data.lower_limit, data.upper_limit)
    return Compose([LoadData(), convert, *grid_steps(data), Pad(data.roi_size), CenterOnBody()])


def random_steps(config: Config) -> Compose:
    """The steps that differ from crop to crop: the network's input ``(S, C, *roi_size)`` and
    one-hot labels.

    The whole scan is varied and ``num_samples`` crops are cut from it; or, with
    ``data.crop_first``, one crop is cut and varied, which is less work on large scans. A crop that
    is to be bent or turned is first cut larger.
    """
    data = config.data
    spatial = [RandomFlip()] if data.mirror else []
    spatial += [RandomAffine(), RandomElastic()] if data.deform else []
    vary = [*spatial, *_intensity_steps(data)]
    one_hot = OneHot(config.model.num_classes)
    if not data.crop_first:
        return Compose(
            [
                *vary,
                RandomCropSamples(data.roi_size, data.num_samples, foreground=data.foreground),
                one_hot,
            ]
        )
    larger = [math.ceil(1.25 * n) for n in data.roi_size] if data.deform else data.roi_size
    crop = RandomCropSamples(larger, foreground=data.foreground)
    return Compose([crop, *spatial, CenterCrop(data.roi_size), *_intensity_steps(data), one_hot])


def _intensity_steps(data: DataConfig) -> list:
    steps = [ScaleIntensityRange(data.min_val, data.max_val)]
    if data.augment:
        steps = [RandomBlur(), RandomShift(), RandomNoise(), *steps, RandomGamma()]
    if data.low_resolution:
        steps = [RandomLowResolution(), *steps]
    return [*steps, AddPosition(jitter=data.augment)] if data.position else steps


class TrainingCrops:
    """Random-access source of training samples for a whole run, epoch after epoch.

    Sample ``i`` of the run depends on ``train.seed`` and ``i`` alone, so it is the same whatever
    thread or process makes it and in whatever order. Of ``rank_size`` devices, device ``rank_id``
    has samples ``rank_id``, ``rank_id + rank_size`` and so on; all have equally many. Each volume
    is read and brought to the working grid once (:class:`PreparedCases`).
    """

    def __init__(
        self,
        cases: list[tuple[Path, Path]],
        config: Config,
        *,
        rank_size: int = 1,
        rank_id: int = 0,
    ):
        if not 0 <= rank_id < rank_size:
            raise ValueError(f"rank_id: expected 0 to {rank_size - 1}, found {rank_id}")
        self.seed = config.train.seed
        self.epochs = config.train.epoch_size
        self.rank_size = rank_size
        self.rank_id = rank_id
        self.prepared = PreparedCases(cases, fixed_steps(config), config.data.cache_path)
        self.random = random_steps(config)
        self.rounds = config.data.num_samples if config.data.crop_first else 1

    def __len__(self) -> int:
        return len(self.prepared) * self.epochs // self.rank_size

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image ``(S, C, *roi_size)`` and one-hot label ``(S, K, *roi_size)``, float32, S crops of
        one volume.
        """
        number = int(index) * self.rank_size + self.rank_id
        image, label = self.prepared[self._case(number)]
        # NumPy takes [1, 2] and [1, 2, 0] for the same seed: the last 1 keeps further crops clear
        # of the steps' numbers
        seeds = [
            [self.seed, number],
            *([self.seed, number, extra, 1] for extra in range(1, self.rounds)),
        ]
        crops = [copy.deepcopy(self.random).set_random_state(seed)(image, label) for seed in seeds]
        if len(crops) == 1:
            return crops[0][0].array, crops[0][1].array
        return tuple(
            np.concatenate([volume.array for volume in side]) for side in zip(*crops, strict=True)
        )

    def name(self, number: int) -> str:
        """File name of the volume that sample ``number`` of the whole run, of all devices together,
        is cut from.
        """
        return self.prepared.files[self._case(number)][0].name

    def _case(self, number: int) -> int:
        epoch, position = divmod(number, len(self.prepared))
        return int(
            np.random.default_rng([self.seed, epoch]).permutation(len(self.prepared))[position]
        )


class Part:
    """Samples ``first`` to ``last`` of another source, ``last`` not included."""

    def __init__(self, source: TrainingCrops, first: int, last: int):
        self.source = source
        self.first = first
        self.last = last

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.source[self.first + int(index)]


def count_steps(config: Config, *, rank_size: int = 1) -> int:
    """Steps of a training run: each takes ``batch_size * accumulate`` volumes in every process; a
    rest is left out.
    """
    volumes = len(list_cases(Path(config.data.data_path) / "train")) * config.train.epoch_size
    return volumes // samples_a_step(config, rank_size)


def samples_a_step(config: Config, rank_size: int = 1) -> int:
    """Volumes that all processes together use up in one step."""
    return config.train.batch_size * config.train.accumulate * rank_size


def batch_names(config: Config, step: int, *, rank_size: int = 1, rank_id: int = 0) -> list[str]:
    """File names of the volumes that one process sees in a step."""
    source = TrainingCrops(list_cases(Path(config.data.data_path) / "train"), config)
    taken = samples_a_step(config, rank_size)
    return [
        source.name(index) for index in range(step * taken + rank_id, (step + 1) * taken, rank_size)
    ]


def create_dataset(
    config: Config, *, rank_size: int = 1, rank_id: int = 0, first_step: int = 0
) -> ds.GeneratorDataset:
    """MindSpore dataset over all steps of a training run, or over those from ``first_step`` on.

    One pass gives every batch of every epoch: ``image (N, C, D, H, W)`` and ``label (N, K, D, H,
    W)``, float32, where N is ``batch_size * num_samples``. An incomplete last step is dropped. Of
    ``rank_size`` processes each sees every ``rank_size``-th sample, so that together they see what
    one process with larger batches would see. The batches are the same whatever ``data.num_worker``
    is. Only a few are made ahead, so memory stays bounded.
    """
    source = TrainingCrops(
        list_cases(Path(config.data.data_path) / "train"),
        config,
        rank_size=rank_size,
        rank_id=rank_id,
    )
    taken = samples_a_step(config)
    source = Part(source, first_step * taken, count_steps(config, rank_size=rank_size) * taken)
    ds.config.set_prefetch_size(AHEAD)  # for all data sets of this process
    # MindSpore refuses more than there are cores.
    workers = min(config.data.num_worker, os.cpu_count() or 1)
    dataset = ds.GeneratorDataset(
        source,
        ["image", "label"],
        shuffle=False,
        num_parallel_workers=workers,
        python_multiprocessing=config.data.worker_processes,
    )
    dataset = dataset.batch(config.train.batch_size, drop_remainder=True)
    for column in ("image", "label"):
        dataset = dataset.map(
            lambda batch: batch.reshape(-1, *batch.shape[2:]), [column], num_parallel_workers=1
        )
    return dataset


def validation_cases(config: Config) -> Iterator[tuple[str, Volume, Volume]]:
    """Name, network input ``(C, I, J, K)`` and class numbers ``(1, I, J, K)`` of every validation
    volume, on the grid.
    """
    steps = Compose(
        [*fixed_steps(config).steps, Pad(config.inference.roi_size), *input_steps(config.data)]
    )
    for image_path, label_path in list_cases(Path(config.data.data_path) / "val"):
        yield image_path.name.removesuffix(".nii.gz"), *convert_files(steps, image_path, label_path)
