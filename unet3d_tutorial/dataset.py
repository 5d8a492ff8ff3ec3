"""Batches for training: which volumes, in what order, cut and varied how, all decided by one seed."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mindspore.dataset as ds
import numpy as np

from .config import Config
from .transforms import (
    AddPosition,
    CenterOnBody,
    Compose,
    ConvertLabel,
    LoadData,
    OneHot,
    Pad,
    RandomBlur,
    RandomCropSamples,
    RandomGamma,
    RandomNoise,
    RandomShift,
    ScaleIntensityRange,
    grid_steps,
    input_steps,
)
from .volume import Volume


def list_cases(folder: str | Path) -> list[tuple[Path, Path]]:
    """Pairs of image and label file in ``folder/{image,seg}``, sorted by name.

    Raises ``FileNotFoundError`` if there are none, or an image or a label stands alone.
    """
    images, labels = ({path.name: path for path in sorted((Path(folder) / kind).glob("*.nii.gz"))
                       if not path.name.endswith(".part.nii.gz")} for kind in ("image", "seg"))
    if not images:
        raise FileNotFoundError(f"{Path(folder) / 'image'}: expected .nii.gz files, found none")
    if lonely := sorted(images.keys() ^ labels.keys()):
        missing = Path(folder) / ("seg" if lonely[0] in images else "image") / lonely[0]
        raise FileNotFoundError(f"{missing} is missing; image and seg must hold files of the same names")
    return [(images[name], labels[name]) for name in images]


def fixed_steps(config: Config) -> Compose:
    """The steps that give the same result each time: files to ``(1, I, J, K)`` HU and class numbers on the working grid."""
    data = config.data
    convert = ConvertLabel(data.lower_limit, data.upper_limit)
    return Compose([LoadData(), convert, *grid_steps(data), Pad(data.roi_size), CenterOnBody()])


def random_steps(config: Config) -> Compose:
    """The steps that differ from crop to crop: the network's input ``(S, C, *roi_size)`` and one-hot labels."""
    data = config.data
    steps = [ScaleIntensityRange(data.min_val, data.max_val)]
    if data.augment:
        steps = [RandomBlur(), RandomShift(), RandomNoise(), *steps, RandomGamma()]
    if data.position:
        steps.append(AddPosition(jitter=data.augment))
    return Compose([*steps, RandomCropSamples(data.roi_size, data.num_samples), OneHot(config.model.num_classes)])


class TrainingCrops:
    """Random-access source of training samples for a whole run, epoch after epoch.

    Sample ``i`` depends on ``seed`` and ``i`` alone, so it is the same whatever worker makes it and in whatever order.
    Each volume is read and brought to the working grid once, then kept in memory as int16.
    """

    def __init__(self, cases: list[tuple[Path, Path]], config: Config):
        self.cases, self.seed, self.epochs = cases, config.train.seed, config.train.epoch_size
        self.fixed, self.random = fixed_steps(config), random_steps(config)
        self.cache: dict[int, tuple[Volume, Volume]] = {}

    def __len__(self) -> int:
        return len(self.cases) * self.epochs

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image ``(S, C, *roi_size)`` and one-hot label ``(S, K, *roi_size)``, float32, S crops of one volume."""
        epoch, position = divmod(int(index), len(self.cases))
        order = self._order(epoch)
        steps = copy.deepcopy(self.random).set_random_state([self.seed, int(index)])
        image, label = steps(*self._case(int(order[position])))
        return image.array, label.array

    def name(self, index: int) -> str:
        """File name of the volume that sample ``index`` is cut from."""
        epoch, position = divmod(int(index), len(self.cases))
        return self.cases[self._order(epoch)[position]][0].name

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.cases))

    def _case(self, number: int) -> tuple[Volume, Volume]:
        if number not in self.cache:
            image, label = self.fixed(*self.cases[number])
            self.cache[number] = replace(image, array=np.rint(image.array).astype(np.int16)), label
        return self.cache[number]


class Part:
    """Samples ``first`` to ``last`` of another source, ``last`` not included."""

    def __init__(self, source: TrainingCrops, first: int, last: int):
        self.source, self.first, self.last = source, first, last

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.source[self.first + int(index)]


def count_steps(config: Config, *, rank_size: int = 1) -> int:
    """Steps of a training run: each takes ``batch_size * accumulate`` volumes in every process; a rest is left out."""
    volumes = len(list_cases(Path(config.data.data_path) / "train")) * config.train.epoch_size
    return volumes // samples_a_step(config, rank_size)


def samples_a_step(config: Config, rank_size: int = 1) -> int:
    """Volumes that all processes together use up in one step."""
    return config.train.batch_size * config.train.accumulate * rank_size


def batch_names(config: Config, step: int, *, rank_size: int = 1, rank_id: int = 0) -> list[str]:
    """File names of the volumes that one process sees in a step."""
    source = TrainingCrops(list_cases(Path(config.data.data_path) / "train"), config)
    taken = samples_a_step(config, rank_size)
    return [source.name(index) for index in range(step * taken + rank_id, (step + 1) * taken, rank_size)]


def create_dataset(config: Config, *, rank_size: int = 1, rank_id: int = 0, first_step: int = 0) -> ds.GeneratorDataset:
    """MindSpore dataset over all steps of a training run, or over those from ``first_step`` on.

    One pass gives every batch of every epoch: ``image (N, C, D, H, W)`` and ``label (N, K, D, H, W)``, float32, where N is
    ``batch_size * num_samples``. An incomplete last step is dropped. Of ``rank_size`` processes each sees every
    ``rank_size``-th sample, so that together they see what one process with larger batches would see.
    """
    source = TrainingCrops(list_cases(Path(config.data.data_path) / "train"), config)
    taken = samples_a_step(config, rank_size)
    source = Part(source, first_step * taken, count_steps(config, rank_size=rank_size) * taken)
    dataset = ds.GeneratorDataset(source, ["image", "label"], shuffle=False, num_shards=rank_size, shard_id=rank_id,
                                  num_parallel_workers=1)
    dataset = dataset.batch(config.train.batch_size, drop_remainder=True)
    for column in ("image", "label"):
        dataset = dataset.map(lambda batch: batch.reshape(-1, *batch.shape[2:]), [column], num_parallel_workers=1)
    return dataset


def validation_cases(config: Config) -> Iterator[tuple[str, Volume, Volume]]:
    """Name, network input ``(C, I, J, K)`` and class numbers ``(1, I, J, K)`` of every validation volume, on the grid."""
    steps = Compose([*fixed_steps(config).steps, Pad(config.inference.roi_size), *input_steps(config.data)])
    for image_path, label_path in list_cases(Path(config.data.data_path) / "val"):
        yield image_path.name.removesuffix(".nii.gz"), *steps(image_path, label_path)
