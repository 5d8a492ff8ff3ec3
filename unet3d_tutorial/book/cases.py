"""The scans of the last chapters: the real CT, if it is available, and held-out phantoms."""

from pathlib import Path

from ..config import Config
from ..dataset import list_cases
from ..files.nifti import load_volume
from ..sample_ct import SampleUnavailable, fetch
from ..transforms import Compose, ConvertLabel, LoadData, convert_files
from ..volume import Volume

REAL_CT, PHANTOM = "real CT", "held-out phantom"


def example_files(config: Config) -> tuple[str, Path, Path]:
    """Return name, image file and label file of the real CT, or of a phantom.

    If the real CT cannot be fetched, this prints why and takes the first held-out phantom.
    """
    try:
        sample = fetch()
    except SampleUnavailable as error:
        print(error)
        return PHANTOM, *_held_out_files(config)[0]
    return REAL_CT, sample.image, sample.label


def example_case(config: Config) -> tuple[str, Volume, Volume]:
    """Return name, image ``(I, J, K)`` in HU and labels 0..3 of :func:`example_files`' scan."""
    name, image, label = example_files(config)
    if name == REAL_CT:
        return name, load_volume(image), load_volume(label)
    return name, *_read(config, image, label)


def held_out_case(config: Config, name: str | None = None) -> tuple[Volume, Volume]:
    """Return image ``(I, J, K)`` in HU and labels 0..3 of a phantom not used for training.

    ``name`` is that of its file without ``.nii.gz``; ``None`` takes the first. Raises ``KeyError``
    for an unknown name.
    """
    files = {
        image.name.removesuffix(".nii.gz"): (image, label)
        for image, label in _held_out_files(config)
    }
    image, label = files[name or next(iter(files))]
    return _read(config, image, label)


def _held_out_files(config: Config) -> list[tuple[Path, Path]]:
    return list_cases(Path(config.data.data_path) / "val")


def _read(config: Config, image: Path, label: Path) -> tuple[Volume, Volume]:
    """Read a phantom, and convert its label values to the classes 1 to 3."""
    limits = config.data.lower_limit, config.data.upper_limit
    scan, classes = convert_files(Compose([LoadData(), ConvertLabel(*limits)]), image, label)
    assert classes is not None  # a label went in
    return scan, classes
