"""Every number that a run depends on, in one place: typed, validated, saved beside the result.

The names are those of the original case. Lengths are millimetres, intensities Hounsfield units
(HU), sizes voxels.
"""

import difflib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from .labels import STRUCTURES, structure_names


@dataclass(frozen=True)
class DataConfig:
    """Where the volumes are and how they are prepared for the network."""

    data_path: str = "data/phantom"  #: folder with train/{image,seg} and val/{image,seg}
    #: resample to this grid; None keeps the scan's own
    spacing_mm: tuple[float, ...] | None = (4.0, 4.0, 4.0)
    min_val: float = -1000.0  #: HU that becomes 0; -1000 is air
    max_val: float = 400.0  #: HU that becomes 1; above are only bone, metal and contrast agent
    #: smallest label value of a structure in the files: 3 left lung, 4 right lung, 5 trachea
    lower_limit: int = 3
    #: largest label value of a structure; everything outside the limits is background
    upper_limit: int = 5
    roi_size: tuple[int, ...] = (64, 64, 48)  #: voxels of a training crop along the R, A and S axes
    num_samples: int = 1  #: crops cut from each loaded volume
    augment: bool = True  #: vary the intensities of training crops
    low_resolution: bool = False  #: make some training crops coarser
    #: mirror some training scans left to right, with the names of the lungs exchanged
    mirror: bool = False
    deform: bool = False  #: turn, scale and bend some training scans
    #: share of training crops that are centred on a structure, each structure equally often
    foreground: float = 0.0
    #: cut, then vary the crop, not the whole scan: much less work on large scans
    crop_first: bool = False
    #: second channel with the distance from the body's middle plane, to tell left from right
    position: bool = True
    cache_path: str = ""  #: folder for prepared scans; without one they stay in memory
    num_worker: int = 1  #: threads or processes that make training crops, at most one a core
    #: processes in place of threads if num_worker > 1, for steps that hold Python's lock
    worker_processes: bool = False


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    name: str = "ResidualUNet3D"  #: ResidualUNet3D (the case's) or UNet3D (the paper's)
    in_channels: int = 2  #: the HU, and the position if data.position
    num_classes: int = 4  #: background, left lung, right lung, trachea
    #: feature maps at each level; five for ResidualUNet3D
    channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    #: batch, or group: statistics of each volume by itself, for very small batches; not for ONNX
    norm: str = "batch"


@dataclass(frozen=True)
class TrainConfig:
    """The optimisation."""

    loss: str = "DiceCELoss"  #: DiceCELoss, DiceLoss or CrossEntropyLoss
    lr: float = 3e-3  #: highest learning rate
    batch_size: int = 2  #: volumes a step
    epoch_size: int = 5  #: passes over the training volumes
    warmup_step: int = 20  #: steps of linear warm-up
    warmup_epoch: float = 0.0  #: epochs of linear warm-up, in place of warmup_step, if above 0
    warmup_ratio: float = 0.1  #: the warm-up starts at this share of lr
    #: share of lr by which weights of convolutions shrink each step (AdamW); 0 is Adam
    weight_decay: float = 0.0
    #: batches whose gradients are averaged into one step; makes up for a small batch_size
    accumulate: int = 1
    clip_norm: float = 0.0  #: a gradient longer than this is shortened to it; 0 never shortens
    #: decay of the moving average of the weights that is validated and kept; 0 keeps none
    average_decay: float = 0.0
    mixed_precision: bool = False  #: all but batch-norm in 16-bit floats; weights stay in 32 bits
    #: the loss is multiplied by this for the gradient only, so that 16-bit floats do not underflow
    loss_scale: float = 1.0
    #: halve loss_scale at an overflow, double it after 1000 steps without one
    dynamic_loss_scale: bool = False
    #: checkpoints of the newest this many looks are kept, and the best one; others go
    keep_checkpoint_max: int = 2
    validate_every: int = 150  #: steps between looks at the held-out volumes
    #: steps between checkpoints to go on from; at most this many are repeated after a crash
    save_every: int = 60
    seed: int = 1  #: seeds weights, order, crops and augmentation
    output_path: str = "runs/quick"  #: checkpoints, history and configuration go here
    #: beside the tables, write the curves for TensorBoard and as MindSpore summary
    event_files: bool = True
    enable_profiling: bool = False  #: record where the time goes, with MindSpore's profiler; slower
    #: one of several processes that msrun started; each sees its share of the data
    run_distribute: bool = False
    device_target: str = "CPU"  #: CPU, GPU or Ascend
    device_id: int = 0  #: which of the machine's devices; under msrun each process gets its own


@dataclass(frozen=True)
class InferenceConfig:
    """From a whole scan to a mask."""

    #: voxels of a sliding window; larger than the crop, for more context
    roi_size: tuple[int, ...] = (96, 96, 96)
    overlap: float = 0.25  #: share of a window that neighbours have in common, 0 <= overlap < 1
    mode: str = "gaussian"  #: weight of a window's voxels: constant or gaussian
    #: fixed: windows at fixed intervals, the last flush with the border; even: evenly spaced
    placement: str = "fixed"
    #: windows predicted at once; more needs more memory, and is faster on a GPU
    batch_size: int = 1
    flip_axes: tuple[
        int, ...
    ] = ()  #: also predict windows mirrored along these axes, 0 left-right, and average
    #: say of a voxel's own HU in its label when logits return to the scan's grid; 0 is none
    hu_weight: float = 3.0
    largest_component: bool = True  #: keep only the largest connected piece of each structure
    #: give each piece of air that walls enclose to the structure that nearly fills it
    whole_air: bool = True
    fill_holes: bool = False  #: give background that a structure encloses to the structure


@dataclass(frozen=True)
class ExportConfig:
    """The network as a file for other programs, and the folders that an Ascend 310 reads and
    writes.
    """

    #: of the exported file, without suffix; it goes beside the checkpoint
    file_name: str = "unet3d"
    file_format: str = "ONNX"  #: ONNX or MINDIR
    pre_result_path: str = "preprocess_Result"  #: windows for the device, one .bin file each
    post_result_path: str = "result_Files"  #: the device's answers, one .bin file a window


@dataclass(frozen=True)
class RemoteConfig:
    """Data and results that lie elsewhere:

    ``s3://bucket/folder`` or any other address that fsspec knows. Empty is local.

    Keys and end points come from the store's own environment variables, never from here.
    """

    data_url: str = ""  #: folder that is copied to data.data_path before the run
    #: folder to which train.output_path is copied, at each checkpoint and at the end
    train_url: str = ""
    checkpoint_url: str = ""  #: checkpoint whose weights a new run begins with
    #: copy with moxing, the library of the ModelArts service, in place of fsspec
    enable_modelarts: bool = False


NETWORKS = ("ResidualUNet3D", "UNet3D")
NORMS = ("batch", "group")
LOSSES = ("DiceCELoss", "DiceLoss", "CrossEntropyLoss")

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

#: how a run is done: its result is the same to the bit whatever these are, so they may change when
#: it goes on
WITHOUT_EFFECT = (
    "data.num_worker",
    "data.worker_processes",
    "data.cache_path",
    "train.save_every",
    "train.keep_checkpoint_max",
    "train.event_files",
    "train.enable_profiling",
)


@dataclass(frozen=True)
class Config:
    """All settings of a run. Immutable: :meth:`updated` gives a changed copy."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    remote: RemoteConfig = field(default_factory=RemoteConfig)

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def preset(cls, name: str) -> "Config":
        """``"quick"`` (two cores, minutes) or ``"luna16"`` (the original case's values)."""
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}; there are {', '.join(PRESETS)}")
        return cls.from_dict(PRESETS[name])

    @classmethod
    def from_dict(cls, values: dict[str, dict[str, Any]]) -> "Config":
        """Defaults, with ``values[section][name]`` in place of some.

        Unknown names raise ``ValueError``.
        """
        return cls().updated(values)

    @classmethod
    def load(cls, path: str | Path, overrides: list[str] = ()) -> "Config":
        """Read YAML, then apply overrides such as ``"train.lr=1e-3"``."""
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not valid YAML: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(
                f"{path}: expected sections ({', '.join(_names(cls))}), found {type(values).__name__}"
            )
        return cls.from_dict(values).override(overrides)

    def override(self, overrides: list[str]) -> "Config":
        """A copy with ``"section.name=value"`` settings applied, all at once; values are read as
        YAML.

        >>> faster = Config.preset("quick").override(["train.lr=1e-2", "data.spacing_mm=[5, 5, 5]"])
        >>> faster.train.lr, faster.data.spacing_mm
        (0.01, (5.0, 5.0, 5.0))
        """
        values: dict[str, dict[str, Any]] = {}
        for text in overrides:
            key, equals, value = text.partition("=")
            section, dot, name = key.strip().partition(".")
            if not (equals and dot):
                raise ValueError(
                    f"override {text!r} is not of the form section.name=value, as in train.lr=1e-3"
                )
            try:
                values.setdefault(section, {})[name] = yaml.safe_load(value)
            except yaml.YAMLError as error:
                raise ValueError(
                    f"{key.strip()}: {value!r} is not valid YAML; is a bracket or a quote missing?"
                ) from error
        return self.updated(values)

    def updated(self, values: dict[str, dict[str, Any]]) -> "Config":
        """A copy with ``values[section][name]`` replaced."""
        sections = {}
        for section, entries in values.items():
            _known(section, _names(self), "section")
            if not isinstance(entries, dict):
                raise ValueError(
                    f"section {section!r}: expected name: value pairs, found {entries!r}"
                )
            old = getattr(self, section)
            for name in entries:
                _known(name, _names(old), f"setting in section {section!r}")
            typed = {
                name: _typed(f"{section}.{name}", value, getattr(old, name))
                for name, value in entries.items()
            }
            sections[section] = replace(old, **typed)
        return replace(self, **sections)

    def save(self, path: str | Path) -> None:
        """Write YAML that :meth:`load` reads back to an equal configuration."""
        path = Path(path)
        part = path.with_name(path.name + ".part")
        part.write_text(
            yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None),
            encoding="utf-8",
        )
        part.replace(path)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain nested dictionaries, with lists in place of tuples."""
        return {
            section: {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in entries.items()
            }
            for section, entries in asdict(self).items()
        }


def differences(stored: Config, wanted: Config) -> str:
    """The settings in which two configurations differ, in words; those :data:`WITHOUT_EFFECT` are
    left aside.
    """
    pairs = (
        (f"{section}.{name}", value, wanted.to_dict()[section][name])
        for section, entries in stored.to_dict().items()
        for name, value in entries.items()
    )
    return ", ".join(
        f"{name} is {old} there, {new} here"
        for name, old, new in pairs
        if old != new and name not in WITHOUT_EFFECT
    )


#: where each setting of the original case lives now: its place, several if it was split, and a
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
    "load_path": ("option --checkpoint", "which weights to use is a question for each call"),
    "device_target": ("train.device_target", ""),
    "checkpoint_path": ("train.output_path", "checkpoints lie beside the history"),
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
        "the crop in training, the sliding window in use",
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
    "post_result_path": ("export.post_result_path", "what the Ascend 310 answers"),
}


def _names(owner: Any) -> list[str]:
    return [entry.name for entry in fields(owner)]


def one_of(setting: str, name: str, names: Sequence[str]) -> None:
    """Raise ``ValueError`` with the nearest of ``names`` unless ``name`` is one of them."""
    if name not in names:
        near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{setting}: expected one of {', '.join(names)}, found {name!r}{hint}")


def _known(name: str, names: list[str], kind: str) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names)}"
        raise ValueError(f"unknown {kind}: {name!r}{hint}")


def _typed(name: str, value: Any, old: Any) -> Any:
    """Give ``value`` the type of the setting that it replaces, or say what was expected."""
    if value is None and name == "data.spacing_mm":
        return None
    kind = tuple if name == "data.spacing_mm" else type(old)
    try:
        if kind is bool:
            if not isinstance(value, bool):
                raise TypeError
            return value
        if kind is int:
            if isinstance(value, bool) or int(value) != float(value):
                raise TypeError
            return int(value)
        if kind is tuple:
            number = float if name == "data.spacing_mm" else int
            if not all(math.isfinite(float(v)) and number(v) == float(v) for v in value):
                raise TypeError
            return tuple(number(v) for v in value)
        return _text(value) if kind is str else _finite(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}: expected {kind.__name__}, found {value!r}") from None


def _text(value: Any) -> str:
    """Text as it is, a number as it is written; nothing, which YAML calls null, is the empty text."""
    if value is None:
        return ""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise TypeError
    return str(value)


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(number := float(value)):
        raise TypeError
    return number


def _check(config: Config) -> None:
    """Refuse values that cannot work, naming the setting."""
    data = config.data
    model = config.model
    train = config.train
    inference = config.inference
    one_of("model.name", model.name, NETWORKS)
    one_of("model.norm", model.norm, NORMS)
    one_of("train.loss", train.loss, LOSSES)
    levels = len(model.channels)
    multiple = 2 ** (levels - 1)
    structures = structure_names(data.lower_limit, data.upper_limit)
    rules = [
        (data.data_path != "", "data.data_path", "a folder", "none"),
        (train.output_path != "", "train.output_path", "a folder", "none"),
        (train.seed >= 0, "train.seed", "at least 0", train.seed),
        (data.min_val < data.max_val, "data.min_val", "below data.max_val", data.min_val),
        (
            data.lower_limit >= 1,
            "data.lower_limit",
            "at least 1, because 0 is background",
            data.lower_limit,
        ),
        (
            data.lower_limit <= data.upper_limit,
            "data.lower_limit",
            "at most data.upper_limit",
            data.lower_limit,
        ),
        *(
            (
                len(roi) == 3 and all(n >= multiple and n % multiple == 0 for n in roi),
                f"{section}.roi_size",
                f"three multiples of {multiple}, which the network halves {levels - 1} times",
                roi,
            )
            for section, roi in (("data", data.roi_size), ("inference", inference.roi_size))
        ),
        (
            data.spacing_mm is None or (len(data.spacing_mm) == 3 and min(data.spacing_mm) > 0),
            "data.spacing_mm",
            "three positive lengths in mm",
            data.spacing_mm,
        ),
        (
            not data.mirror or structures[:2] == STRUCTURES[:2],
            "data.mirror",
            "false unless left and right lung, whose names it exchanges, are the first two structures",
            data.mirror,
        ),
        (data.num_samples >= 1, "data.num_samples", "at least 1", data.num_samples),
        (0 <= data.foreground <= 1, "data.foreground", "from 0 to 1", data.foreground),
        (data.num_worker >= 1, "data.num_worker", "at least 1", data.num_worker),
        (
            model.num_classes == data.upper_limit - data.lower_limit + 2,
            "model.num_classes",
            "one more than the label values from data.lower_limit to data.upper_limit",
            model.num_classes,
        ),
        (
            (levels == 5 or model.name == "UNet3D" and levels >= 2) and min(model.channels) >= 2,
            "model.channels",
            "five numbers, at least 2 (UNet3D: two or more)",
            model.channels,
        ),
        (
            model.in_channels == 1 + data.position,
            "model.in_channels",
            "2 with data.position, 1 without",
            model.in_channels,
        ),
        (train.lr > 0, "train.lr", "positive", train.lr),
        (train.batch_size >= 1, "train.batch_size", "at least 1", train.batch_size),
        (train.epoch_size >= 1, "train.epoch_size", "at least 1", train.epoch_size),
        (train.warmup_step >= 0, "train.warmup_step", "at least 0", train.warmup_step),
        (train.warmup_epoch >= 0, "train.warmup_epoch", "at least 0", train.warmup_epoch),
        (0 <= train.warmup_ratio <= 1, "train.warmup_ratio", "from 0 to 1", train.warmup_ratio),
        (train.weight_decay >= 0, "train.weight_decay", "at least 0", train.weight_decay),
        (train.accumulate >= 1, "train.accumulate", "at least 1", train.accumulate),
        (train.clip_norm >= 0, "train.clip_norm", "at least 0", train.clip_norm),
        (
            0 <= train.average_decay < 1,
            "train.average_decay",
            "at least 0 and below 1",
            train.average_decay,
        ),
        (train.loss_scale >= 1, "train.loss_scale", "at least 1", train.loss_scale),
        (train.save_every >= 1, "train.save_every", "at least 1", train.save_every),
        (train.device_id >= 0, "train.device_id", "at least 0", train.device_id),
        (
            train.keep_checkpoint_max >= 1,
            "train.keep_checkpoint_max",
            "at least 1",
            train.keep_checkpoint_max,
        ),
        (train.validate_every >= 1, "train.validate_every", "at least 1", train.validate_every),
        (
            train.device_target in ("CPU", "GPU", "Ascend"),
            "train.device_target",
            "CPU, GPU or Ascend",
            train.device_target,
        ),
        (
            0 <= inference.overlap < 1,
            "inference.overlap",
            "at least 0 and below 1",
            inference.overlap,
        ),
        (inference.hu_weight >= 0, "inference.hu_weight", "at least 0", inference.hu_weight),
        (
            inference.mode in ("constant", "gaussian"),
            "inference.mode",
            "constant or gaussian",
            inference.mode,
        ),
        (
            inference.placement in ("fixed", "even"),
            "inference.placement",
            "fixed or even",
            inference.placement,
        ),
        (inference.batch_size >= 1, "inference.batch_size", "at least 1", inference.batch_size),
        (
            sorted(set(inference.flip_axes) & {0, 1, 2}) == sorted(inference.flip_axes),
            "inference.flip_axes",
            "each of 0, 1 and 2 at most once",
            inference.flip_axes,
        ),
        (
            config.export.file_format in ("ONNX", "MINDIR"),
            "export.file_format",
            "ONNX or MINDIR",
            config.export.file_format,
        ),
    ]
    for holds, name, expected, found in rules:
        if not holds:
            raise ValueError(f"{name}: expected {expected}, found {found}")
