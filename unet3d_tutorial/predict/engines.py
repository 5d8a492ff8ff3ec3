"""Run an exported network without MindSpore: with ONNX Runtime, or on an Ascend 310.

ONNX Runtime computes on this machine. An Ascend 310 reads windows from files and writes its results
to files. Both work on NumPy arrays and serve :func:`unet3d_tutorial.inference.segment` as its
predictor.
"""

from itertools import count
from pathlib import Path

import numpy as np
import onnxruntime
import yaml

from ..config import Config
from ..files.whole import written_whole
from ..inference import Predictor, segment
from ..volume import Volume

#: The packages that prediction with ONNX Runtime needs in addition to this one.
REQUIREMENTS = (
    "numpy",
    "scipy",
    "nibabel",
    "SimpleITK",
    "connected-components-3d",
    "onnxruntime",
    "PyYAML",
    "lazy_loader",
    "pydantic",
    "tabulate",
    "tqdm",
)
#: The metadata key of the configuration in an ONNX file.
CONFIG_KEY = "unet3d_tutorial.config"
#: The settings that must be the same as in training, by section.
TRAINED_WITH = {
    "data": ("spacing_mm", "min_val", "max_val", "position"),
    "model": ("in_channels", "num_classes", "channels"),
}
#: The sections that are stored in an exported network: all that prediction needs.
EXPORTED_SECTIONS = ("data", "model", "inference")
#: The folder of windows for an Ascend 310, inside the folder that its program is given.
WINDOWS_FOLDER = "00_data"
#: The quietest of ONNX Runtime's log levels, 0 to 4: only fatal errors are printed.
FATAL_ONLY = 4
FLOAT32_BYTES = 4


# ------------------------------------------------------------------------------------- ONNX Runtime


def load_onnx(path: str | Path) -> tuple[Predictor, Config]:
    """Load the network of an ONNX file as a predictor, and its configuration.

    The file is one of :func:`unet3d_tutorial.export.to_onnx`. The predictor takes
    ``(N, C, D, H, W)`` and returns logits ``(N, K, D, H, W)``. N is free, and D, H and W can be any
    sizes that the network can halve, unless the file was exported with fixed sizes. Raises
    ``FileNotFoundError``, or ``ValueError`` if the file is not such an export.
    """
    path = Path(path)
    session = _open_session(path)
    config = _stored_config(session, path)
    _check_channels(session, config, path)
    name = session.get_inputs()[0].name

    def predictor(batch: np.ndarray) -> np.ndarray:
        (logits,) = session.run(None, {name: np.ascontiguousarray(batch, np.float32)})
        return logits

    return predictor, config


def _open_session(path: Path) -> onnxruntime.InferenceSession:
    if not path.is_file():
        raise FileNotFoundError(f"no such model: {path}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL_ONLY  # errors are raised as exceptions, not printed too
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises its own kinds of exceptions
        raise ValueError(f"{path} is not an ONNX model: {error}") from error


def _stored_config(session: onnxruntime.InferenceSession, path: Path) -> Config:
    """The configuration in the file's metadata."""
    stored = session.get_modelmeta().custom_metadata_map.get(CONFIG_KEY)
    if stored is None:
        raise ValueError(
            f"{path}: expected a model that says how scans are prepared for it, found no "
            f"{CONFIG_KEY} in its metadata; export it with unet3d export"
        )
    return parse_config(stored, path)


def _check_channels(session: onnxruntime.InferenceSession, config: Config, path: Path) -> None:
    """Raise ``ValueError`` unless the graph has one input and one output with correct channels.

    The expected numbers of channels come from the configuration in the file.
    """
    expected = [config.model.in_channels, config.model.num_classes]
    ends = [*session.get_inputs(), *session.get_outputs()]
    channels = [end.shape[1:2] for end in ends]
    if channels != [[number] for number in expected]:
        raise ValueError(
            f"{path}: expected one input and one output, of {expected} channels, found {channels}"
        )


# ------------------------------------------------------------- the configuration in an ONNX file


def dump_config(config: Config) -> str:
    """The sections data, model and inference as YAML, without those that only training needs."""
    sections = config.to_dict()
    exported = {name: sections[name] for name in EXPORTED_SECTIONS}
    return yaml.safe_dump(exported, default_flow_style=None)


def parse_config(text: str, name: str | Path) -> Config:
    """Read a configuration that :func:`dump_config` wrote.

    Raises ``ValueError`` if it is damaged or of another version; the message begins with ``name``,
    the file that ``text`` came from.
    """
    try:
        return Config.from_dict(yaml.safe_load(text))
    except (ValueError, AttributeError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"{name}: its configuration cannot be read: {error}") from error


def check_trained_with(config: Config, trained: Config, name: str | Path) -> None:
    """Raise ``ValueError`` if ``config`` prepares scans differently from ``trained``.

    ``trained`` is the configuration of the network's training. ``name`` is the network's file, for
    the message.
    """
    for section, settings in TRAINED_WITH.items():
        for setting in settings:
            value = getattr(getattr(config, section), setting)
            expected = getattr(getattr(trained, section), setting)
            if value != expected:
                raise ValueError(
                    f"{section}.{setting}: expected {expected}, with which {name} was trained, "
                    f"found {value}"
                )


# --------------------------------------------------------------------------------------- Ascend 310


def write_windows(image: Volume, folder: str | Path, config: Config) -> list[Path]:
    """Write the network's input for a scan as one ``.bin`` file per window; return the paths.

    They are for a device that reads only files. Layout and names are those that the Unet3d of the
    model zoo uses for its Ascend 310 program (``preprocess.py`` and ``ascend310_infer``,
    mindspore-ai/mindspore, model_zoo/official/cv/unet3d): ``folder/00_data/unet3d_bs1_bt0_N.bin``
    for window N of scan 0 in batches of 1; float32, C order, ``(1, C, *inference.roi_size)``, no
    header. Raises ``FileExistsError`` unless ``folder`` is empty or absent.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder}: expected an empty folder, found files in it")
    (folder / WINDOWS_FOLDER).mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []

    def write(batch: np.ndarray) -> np.ndarray:
        for window in batch:
            path = folder / WINDOWS_FOLDER / f"{_window_name(len(paths))}.bin"
            with written_whole(path) as part:
                window.tofile(part)
            paths.append(path)
        return np.zeros((len(batch), config.model.num_classes, *batch.shape[2:]), np.float32)

    # The mask is meaningless; this only makes sure that read_results asks for the same windows.
    segment(image, write, config)
    return paths


def read_results(image: Volume, folder: str | Path, config: Config) -> Volume:
    """Combine the device's results into a mask ``(I, J, K)`` on the scan's own grid.

    The zoo's program names the first output of ``unet3d_bs1_bt0_N.bin`` ``unet3d_bs1_bt0_N_0.bin``:
    float32 logits, C order, ``(1, K, *inference.roi_size)`` for K classes. Raises ``ValueError`` if
    a file is missing, left over, or of another length.
    """
    folder = Path(folder)
    shape = (config.model.num_classes, *config.inference.roi_size)
    available = len(list(folder.glob(_result_name("*"))))
    numbers = count()

    def read(batch: np.ndarray) -> np.ndarray:
        return np.stack([_read_result(folder / _result_name(next(numbers)), shape) for _ in batch])

    mask = segment(image, read, config)
    if available != next(numbers):
        raise ValueError(
            f"{folder}: this scan has fewer windows than the {available} results; are they another "
            "scan's?"
        )
    return mask


def _window_name(number: int | str) -> str:
    """The zoo's name of a window, without suffix: batches of 1 (``bs1``), scan 0 (``bt0``)."""
    return f"unet3d_bs1_bt0_{number}"


def _result_name(number: int | str) -> str:
    """The zoo's file name of the first output for a window."""
    return f"{_window_name(number)}_0.bin"


def _read_result(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read the float32 logits of one window, of ``shape``."""
    if not path.is_file():
        raise ValueError(f"{path}: expected the device's result for this window, found no file")
    size = path.stat().st_size
    expected = FLOAT32_BYTES * int(np.prod(shape))
    if size != expected:
        raise ValueError(
            f"{path}: expected {expected} bytes, float32 of shape {shape}, found {size}"
        )
    return np.fromfile(path, np.float32).reshape(shape)
