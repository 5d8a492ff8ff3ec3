"""Every number that a run depends on, in one place: typed, checked, saved next to the result.

Each section is a dataclass. The annotations give the bounds of each setting: ``Ge(1)`` means at
least 1, ``Gt(0)`` above 0, ``Le(1)`` at most 1 and ``Lt(1)`` below 1. Pydantic checks them,
wherever a value comes from: Python, a YAML file or the command line. Rules that relate several
settings are the functions in :data:`RULES`.

The names are those of the original case. Lengths are in millimetres, intensities in Hounsfield
units (HU), sizes in voxels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MinLen

from .files.checked_settings import Expected, Settings, checked, setting_lines, settings_table
from .files.whole import written_whole
from .files.wording import check_name, shortened
from .files.wording import one_of as one_of  # for names that modules take from their callers
from .files.yaml_settings import (
    Written,
    read_sections,
    read_value,
    value_of,
    written_sections,
)
from .labels import STRUCTURES, structure_names

NetworkName = Literal["ResidualUNet3D", "UNet3D"]
Norm = Literal["batch", "group"]
LossName = Literal["DiceCELoss", "DiceLoss", "CrossEntropyLoss"]

NETWORK_NAMES: tuple[str, ...] = get_args(NetworkName)
NORMS: tuple[str, ...] = get_args(Norm)
LOSSES: tuple[str, ...] = get_args(LossName)

# Kinds of values that several settings share, or that are too long for one line.

Folder = Annotated[str, MinLen(1), Expected("a folder")]
Voxels = Annotated[int, Ge(1)]
#: size of a region of interest (ROI) along three axes
Roi = Annotated[tuple[Voxels, Voxels, Voxels], Expected("three whole numbers of at least 1")]
Length = Annotated[float, Gt(0)]
#: distances between voxels along three axes, in mm
GridSpacing = Annotated[
    tuple[Length, Length, Length] | None, Expected("three positive lengths in mm")
]
FeatureMaps = Annotated[int, Ge(2)]


# ------------------------------------------------------------------------------------- the settings


@checked("data")
class DataConfig(Settings):
    """Where the scans are and how they are prepared for the network."""

    data_path: Folder = "data/phantom"  #: folder with train/{image,seg} and val/{image,seg}
    #: resample to this spacing, in mm along the R, A and S axes; None keeps the scan's own
    spacing_mm: GridSpacing = (4.0, 4.0, 4.0)
    min_val: float = -1000.0  #: HU that becomes 0; -1000 is air
    max_val: float = 400.0  #: HU that becomes 1; only bone, metal and contrast agent are denser
    #: smallest label value of a structure in the files: 3 left lung, 4 right lung, 5 trachea
    lower_limit: Annotated[
        int,
        Ge(1),
        Expected("a whole number of at least 1, because 0 is background"),
    ] = 3
    #: largest label value of a structure; everything outside the limits is background
    upper_limit: int = 5
    roi_size: Roi = (64, 64, 48)  #: voxels of a training crop along the R, A and S axes
    num_samples: Annotated[int, Ge(1)] = 1  #: crops cut from each loaded volume
    augment: bool = True  #: vary the intensities of training crops
    low_resolution: bool = False  #: make some training crops coarser
    #: mirror some training scans left to right, with the names of the lungs exchanged
    mirror: bool = False
    deform: bool = False  #: rotate, scale and warp some training scans
    #: share of training crops that are centred on a structure, each structure equally often
    foreground: Annotated[float, Ge(0), Le(1)] = 0.0
    #: cut first, then augment the crop only, not the whole scan: much less work on large scans
    crop_first: bool = False
    #: second channel with the distance from the body's middle plane, to tell left from right
    position: bool = True
    cache_path: str = ""  #: folder for prepared scans; empty keeps them in memory
    #: threads or processes that make training crops, at most one per core
    num_worker: Annotated[int, Ge(1)] = 1
    #: processes instead of threads if num_worker > 1, for steps that hold Python's global lock
    worker_processes: bool = False


@checked("model")
class ModelConfig(Settings):
    """The network."""

    name: NetworkName = "ResidualUNet3D"  #: ResidualUNet3D (the case's) or UNet3D (the paper's)
    in_channels: Annotated[int, Ge(1)] = 2  #: the HU, and the position if data.position
    num_classes: Annotated[int, Ge(2)] = 4  #: background, left lung, right lung, trachea
    #: feature maps at each level; five for ResidualUNet3D
    channels: Annotated[
        tuple[FeatureMaps, ...],
        MinLen(2),
        Expected("two or more whole numbers of at least 2"),
    ] = (16, 32, 64, 128, 256)
    #: batch, or group: statistics of each volume separately, for very small batches; not for ONNX
    norm: Norm = "batch"


@checked("train")
class TrainConfig(Settings):
    """The optimisation."""

    loss: LossName = "DiceCELoss"  #: DiceCELoss, DiceLoss or CrossEntropyLoss
    lr: Annotated[float, Gt(0)] = 3e-3  #: highest learning rate
    batch_size: Annotated[int, Ge(1)] = 2  #: volumes in each step
    epoch_size: Annotated[int, Ge(1)] = 5  #: passes over the training volumes
    warmup_step: Annotated[int, Ge(0)] = 20  #: steps of linear warm-up
    #: epochs of linear warm-up; if above 0, used instead of warmup_step
    warmup_epoch: Annotated[float, Ge(0)] = 0.0
    #: the warm-up starts at this share of lr
    warmup_ratio: Annotated[float, Ge(0), Le(1)] = 0.1
    #: lr times this: fraction by which convolution weights shrink each step (AdamW); 0 is Adam
    weight_decay: Annotated[float, Ge(0)] = 0.0
    #: batches whose gradients are averaged into one step; makes up for a small batch_size
    accumulate: Annotated[int, Ge(1)] = 1
    #: a gradient with a larger norm is scaled down to this norm; 0 never clips
    clip_norm: Annotated[float, Ge(0)] = 0.0
    #: decay of the moving average of the weights that is validated and kept; 0 keeps none
    average_decay: Annotated[float, Ge(0), Lt(1)] = 0.0
    mixed_precision: bool = False  #: all but batch-norm in 16-bit floats; weights stay in 32 bits
    #: factor on the loss for the gradient only, so that 16-bit floats do not underflow
    loss_scale: Annotated[float, Ge(1)] = 1.0
    #: halve loss_scale at an overflow, double it after 1000 steps without one
    dynamic_loss_scale: bool = False
    #: number of latest validation checkpoints to keep; the best one is kept as well
    keep_checkpoint_max: Annotated[int, Ge(1)] = 2
    #: steps between two validations on the held-out volumes
    validate_every: Annotated[int, Ge(1)] = 150
    #: steps between checkpoints to continue from; at most this many are repeated after a crash
    save_every: Annotated[int, Ge(1)] = 60
    #: seeds weights, order, crops and augmentation; MindSpore takes 32 bits
    seed: Annotated[int, Ge(0), Lt(2**32)] = 1
    output_path: Folder = "runs/quick"  #: checkpoints, history and configuration go here
    #: also write the curves for TensorBoard and as MindSpore summary files
    event_files: bool = True
    enable_profiling: bool = False  #: record where the time goes, with MindSpore's profiler; slower
    #: train with several processes that msrun starts; each sees its share of the data
    run_distribute: bool = False
    device_target: Literal["CPU", "GPU", "Ascend"] = "CPU"  #: where to compute
    #: which of the machine's devices; under msrun each process gets its own
    device_id: Annotated[int, Ge(0)] = 0


@checked("inference")
class InferenceConfig(Settings):
    """How to get from a whole scan to a mask."""

    #: voxels of a sliding window; larger than the training crop, for more context
    roi_size: Roi = (96, 96, 96)
    #: fraction of a window that overlaps its neighbour; with 1 the window would never move
    overlap: Annotated[float, Ge(0), Lt(1)] = 0.25
    mode: Literal["constant", "gaussian"] = "gaussian"  #: how overlapping windows are weighted
    #: fixed: windows at fixed intervals, the last flush with the border; even: evenly spaced
    placement: Literal["fixed", "even"] = "fixed"
    #: windows predicted at once; more need more memory and are faster on a GPU
    batch_size: Annotated[int, Ge(1)] = 1
    #: also predict windows mirrored along these axes (0 is left-right), and average
    flip_axes: Annotated[
        tuple[Annotated[int, Ge(0), Le(2)], ...],
        Expected("each of 0, 1 and 2 at most once"),
    ] = ()
    #: weight of a voxel's own HU when logits are resampled to the scan's grid; 0 ignores the HU
    hu_weight: Annotated[float, Ge(0)] = 3.0
    largest_component: bool = True  #: keep only the largest connected piece of each structure
    #: assign each piece of air enclosed by walls to the structure that nearly fills it
    whole_air: bool = True
    fill_holes: bool = False  #: fill background that a structure encloses


@checked("export")
class ExportConfig(Settings):
    """The network as a file, and the folders that an Ascend 310 reads and writes."""

    #: name of the exported file, without suffix; it is written next to the checkpoint
    file_name: str = "unet3d"
    file_format: Literal["ONNX", "MINDIR"] = "ONNX"  #: MINDIR is MindSpore's own
    pre_result_path: str = "preprocess_Result"  #: windows for the device, one .bin each
    post_result_path: str = "result_Files"  #: the device's outputs, one .bin per window


@checked("remote")
class RemoteConfig(Settings):
    """Data and results in a remote store; with an empty address nothing is copied.

    An address is ``s3://bucket/folder`` or any other that fsspec supports. Keys and end points come
    from the environment variables of the store's library, never from the configuration.
    """

    data_url: str = ""  #: folder that is copied to data.data_path before the run
    #: folder to which train.output_path is copied, at each checkpoint and at the end
    train_url: str = ""
    checkpoint_url: str = ""  #: checkpoint whose weights a new run begins with
    #: copy with moxing, the library of the ModelArts service, instead of fsspec
    enable_modelarts: bool = False


# -------------------------------------------------------------------------------------- the presets

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {},
    "luna16": {
        "data": {
            "data_path": "data/LUNA16",
            "spacing_mm": None,
            "min_val": -500.0,
            "max_val": 1000.0,
            "roi_size": (224, 224, 96),
            "num_samples": 4,
            "position": False,
            "crop_first": True,
            "cache_path": "data/LUNA16-prepared",
            "num_worker": 4,
        },
        "model": {"in_channels": 1},
        "train": {
            "lr": 5e-4,
            "batch_size": 2,
            "epoch_size": 10,
            "warmup_step": 120,
            "warmup_ratio": 0.3,
            "loss_scale": 256.0,
            "keep_checkpoint_max": 1,
            "output_path": "runs/luna16",
        },
        "inference": {
            "roi_size": (224, 224, 96),
            "mode": "constant",
            "hu_weight": 0.0,
            "whole_air": False,
        },
    },
}

#: How a run is done, not what it computes: the result is bit-identical for any values of these
#: settings, so they may change when the run is continued.
WITHOUT_EFFECT = (
    "data.num_worker",
    "data.worker_processes",
    "data.cache_path",
    "train.save_every",
    "train.keep_checkpoint_max",
    "train.event_files",
    "train.enable_profiling",
)


# -------------------------------------------------------------------------------- the configuration


@checked()
class Config:
    """All settings of a run. Immutable: :meth:`updated` gives a changed copy."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    inference: InferenceConfig = InferenceConfig()
    export: ExportConfig = ExportConfig()
    remote: RemoteConfig = RemoteConfig()

    def __post_init__(self) -> None:
        for rule in RULES:
            rule(self)

    @classmethod
    def preset(cls, name: str) -> "Config":
        """Return ``"quick"`` (minutes on two cores) or ``"luna16"`` (the original case's values).

        Raises ``ValueError`` for any other name.
        """
        if name not in PRESETS:
            raise ValueError(f"unknown preset {shortened(name)}; there are {', '.join(PRESETS)}")
        return cls.from_dict(PRESETS[name])

    @classmethod
    def from_dict(cls, values: Mapping[str, Mapping[str, Any]]) -> "Config":
        """Return the defaults, with the settings in ``values[section][name]`` replaced.

        Raises ``ValueError`` for unknown names and for values that are not allowed.
        """
        return cls().updated(values)

    @classmethod
    def from_yaml(cls, text: str, source: str) -> "Config":
        """Return the defaults, with the settings in a YAML text replaced.

        ``source`` is the name of the file that the text comes from. Raises ``ValueError``, which
        begins with it.
        """
        names = {section: list(kinds) for section, kinds in _kinds().items()}
        written = read_sections(text, source, names)
        try:
            return cls.from_dict(_typed(written))
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None

    @classmethod
    def load(cls, path: str | Path, overrides: str | Sequence[str] = ()) -> "Config":
        """Read a YAML file, then apply overrides such as ``"train.lr=1e-3"``.

        Raises ``FileNotFoundError`` if there is no such file, and ``ValueError`` as
        :meth:`from_yaml` and :meth:`override` do.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not valid YAML: {error}") from error
        return cls.from_yaml(text, str(path)).override(overrides)

    def override(self, overrides: str | Sequence[str]) -> "Config":
        """Return a copy with ``"section.name=value"`` settings applied, all at once.

        A value is written as in a YAML file, and the type of the setting decides what it means.
        Raises ``ValueError`` as :meth:`from_dict` does, and for text that is not of this form.

        >>> faster = Config.preset("quick").override(["train.lr=1e-2", "data.spacing_mm=[5, 5, 5]"])
        >>> faster.train.lr, faster.data.spacing_mm
        (0.01, (5.0, 5.0, 5.0))
        """
        if isinstance(overrides, str):
            overrides = [overrides]
        written: dict[str, dict[str, Written]] = {}
        for text in overrides:
            key, equals, value = text.partition("=")
            section, dot, name = key.strip().partition(".")
            if not (equals and dot):
                raise ValueError(
                    f"override {shortened(text)} is not of the form section.name=value, "
                    "as in train.lr=1e-3"
                )
            written.setdefault(section, {})[name] = read_value(value, key.strip())
        return self.updated(_typed(written))

    def updated(self, values: Mapping[str, Mapping[str, Any]]) -> "Config":
        """Return a copy with ``values[section][name]`` replaced, all at once.

        Raises ``ValueError`` as :meth:`from_dict` does.
        """
        _check_sections(values)
        changed = {}
        for section, settings in values.items():
            changed[section] = replace(getattr(self, section), **settings)
        return replace(self, **changed)

    def save(self, path: str | Path) -> None:
        """Write a YAML file from which :meth:`load` reads an equal configuration."""
        with written_whole(path) as part:
            part.write_text(written_sections(self.to_dict()), encoding="utf-8")

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return plain nested dictionaries, with lists instead of tuples."""
        plain: dict[str, dict[str, Any]] = {}
        for section, settings in asdict(self).items():
            plain[section] = {}
            for name, value in settings.items():
                plain[section][name] = list(value) if isinstance(value, tuple) else value
        return plain

    def __str__(self) -> str:
        """All settings; a star marks those that differ from their default."""
        text = []
        for entry in fields(self):
            text.append(entry.name)
            text += [f"  {line}" for line in setting_lines(getattr(self, entry.name))]
        return "\n".join(text)

    def _repr_html_(self) -> str:
        return settings_table({entry.name: getattr(self, entry.name) for entry in fields(self)})


def differences(stored: Config, wanted: Config) -> str:
    """List the settings in which two configurations differ, in words; empty if there are none.

    Settings in :data:`WITHOUT_EFFECT` are ignored.
    """
    here = wanted.to_dict()
    words = []
    for section, settings in stored.to_dict().items():
        for name, value in settings.items():
            setting = f"{section}.{name}"
            if setting not in WITHOUT_EFFECT and value != here[section][name]:
                words.append(f"{setting} is {value} there, {here[section][name]} here")
    return ", ".join(words)


def _kinds() -> dict[str, dict[str, Any]]:
    """The type of each setting without its bounds, as ``kinds[section][name]``."""
    sections = get_type_hints(Config)
    return {name: get_type_hints(section) for name, section in sections.items()}


def _check_sections(values: Any) -> None:
    """Refuse anything but ``values[section][name]`` with names of settings."""
    kinds = _kinds()
    if not isinstance(values, Mapping):
        raise ValueError(f"expected sections ({', '.join(kinds)}), found {shortened(values)}")
    for section, settings in values.items():
        check_name(section, list(kinds), "section")
        if not isinstance(settings, Mapping):
            raise ValueError(
                f"section {section!r}: expected name: value pairs, found {shortened(settings)}"
            )
        for name in settings:
            check_name(name, list(kinds[section]), f"setting in section {section!r}")


def _typed(written: Mapping[str, Mapping[str, Written]]) -> dict[str, dict[str, Any]]:
    """Convert what was written to the types of the settings; unknown names remain text."""
    kinds = _kinds()
    values: dict[str, dict[str, Any]] = {}
    for section, settings in written.items():
        types = kinds.get(section, {})
        values[section] = {}
        for name, text in settings.items():
            values[section][name] = value_of(text, types.get(name, str))
    return values


# ---------------------------------------------------------------- the rules that relate settings


def _require(holds: bool, setting: str, expected: str, found: Any) -> None:
    """Raise ``ValueError``, naming ``setting`` and what is expected of it, unless it ``holds``."""
    if not holds:
        raise ValueError(f"{setting}: expected {expected}, found {shortened(found)}")


def _intensities_have_a_range(config: Config) -> None:
    """The HU that becomes 0 is below the HU that becomes 1."""
    low, high = config.data.min_val, config.data.max_val
    _require(low < high, "data.min_val", "below data.max_val", low)


def _labels_have_a_range(config: Config) -> None:
    """There is at least one structure."""
    low, high = config.data.lower_limit, config.data.upper_limit
    _require(low <= high, "data.lower_limit", "at most data.upper_limit", low)


def _rois_can_be_halved(config: Config) -> None:
    """Each level of the network except the last halves all axes of a crop or a window."""
    halvings = len(config.model.channels) - 1
    multiple = 2**halvings
    expected = f"three multiples of {multiple}, which the network halves {halvings} times"
    for section, roi in (("data", config.data.roi_size), ("inference", config.inference.roi_size)):
        fits = all(size % multiple == 0 for size in roi)
        _require(fits, f"{section}.roi_size", expected, roi)


def _classes_are_the_labels(config: Config) -> None:
    """One class for each label value, and one for the background."""
    _require(
        config.model.num_classes == config.data.upper_limit - config.data.lower_limit + 2,
        "model.num_classes",
        "one more than the label values from data.lower_limit to data.upper_limit",
        config.model.num_classes,
    )


def _only_lungs_are_mirrored(config: Config) -> None:
    """Mirroring makes the left lung the right one, so both must be there to exchange labels."""
    if not config.data.mirror:
        return
    structures = structure_names(config.data.lower_limit, config.data.upper_limit)
    _require(
        structures[:2] == STRUCTURES[:2],
        "data.mirror",
        "false unless left and right lung, whose names it exchanges, are the first two structures",
        config.data.mirror,
    )


def _residual_network_has_five_levels(config: Config) -> None:
    """The case's network is written for five levels; the paper's has two or more."""
    channels = config.model.channels
    _require(
        config.model.name == "UNet3D" or len(channels) == 5,
        "model.channels",
        "five numbers, at least 2 (UNet3D: two or more)",
        channels,
    )


def _position_is_a_channel(config: Config) -> None:
    """The network gets the HU in one channel, and the position, if any, in a second one."""
    _require(
        config.model.in_channels == 1 + config.data.position,
        "model.in_channels",
        "2 with data.position, 1 without",
        config.model.in_channels,
    )


def _axes_are_flipped_once(config: Config) -> None:
    """Mirroring twice along one axis undoes itself, so each axis is given at most once."""
    axes = config.inference.flip_axes
    _require(
        len(set(axes)) == len(axes),
        "inference.flip_axes",
        "each of 0, 1 and 2 at most once",
        axes,
    )


#: Rules that relate several settings; each raises ``ValueError`` naming the setting to change.
RULES = (
    _intensities_have_a_range,
    _labels_have_a_range,
    _residual_network_has_five_levels,
    _rois_can_be_halved,
    _classes_are_the_labels,
    _only_lungs_are_mirrored,
    _position_is_a_channel,
    _axes_are_flipped_once,
)


# ------------------------------------------------------------------------------ the original case


#: each setting of the original case: where it is now (several settings if it was split), and a
#: remark
CASE: dict[str, tuple[str, str]] = {
    "enable_fp16_gpu": ("train.mixed_precision", "on any device that computes in 16 bits"),
    "enable_modelarts": ("remote.enable_modelarts", "copies with moxing"),
    "data_url": ("remote.data_url", ""),
    "train_url": ("remote.train_url", "spelt `train_ur` in the case's code"),
    "checkpoint_url": ("remote.checkpoint_url", ""),
    "run_distribute": ("train.run_distribute", "the processes are started by `msrun`"),
    "enable_profiling": ("train.enable_profiling", ""),
    "data_path": ("data.data_path", "the folder that holds `train` and `val`"),
    "output_path": ("train.output_path", ""),
    "load_path": ("option --checkpoint", "which weights to use is chosen at each call"),
    "device_target": ("train.device_target", ""),
    "checkpoint_path": ("train.output_path", "checkpoints are next to the history"),
    "checkpoint_file_path": ("option --checkpoint", ""),
    "num_worker": (
        "data.num_worker, data.worker_processes",
        "threads, or processes as in the case",
    ),
    "lr": ("train.lr", ""),
    "batch_size": ("train.batch_size", "takes effect"),
    "epoch_size": ("train.epoch_size", "takes effect"),
    "warmup_step": ("train.warmup_step", ""),
    "warmup_ratio": ("train.warmup_ratio", ""),
    "num_classes": ("model.num_classes", ""),
    "in_channels": ("model.in_channels", ""),
    "keep_checkpoint_max": ("train.keep_checkpoint_max", "takes effect"),
    "loss_scale": ("train.loss_scale, train.dynamic_loss_scale", "takes effect"),
    "roi_size": (
        "data.roi_size, inference.roi_size",
        "the training crop, and the sliding window at inference",
    ),
    "overlap": ("inference.overlap", ""),
    "min_val": ("data.min_val", "the HU that becomes 0"),
    "max_val": ("data.max_val", "the HU that becomes 1"),
    "upper_limit": ("data.upper_limit", "largest label value of a structure"),
    "lower_limit": ("data.lower_limit", "smallest label value of a structure"),
    "device_id": ("train.device_id", "under `msrun` each process gets its own"),
    "ckpt_file": ("option --checkpoint", ""),
    "file_name": ("export.file_name", "without suffix"),
    "file_format": ("export.file_format", "ONNX or MINDIR"),
    "pre_result_path": ("export.pre_result_path", "windows for an Ascend 310"),
    "post_result_path": ("export.post_result_path", "outputs of the Ascend 310"),
}
