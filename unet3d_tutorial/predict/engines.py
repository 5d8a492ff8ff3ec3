"""Run an exported network without MindSpore, by ONNX Runtime or on an Ascend 310.

ONNX Runtime computes on this machine; an Ascend 310 reads windows from files and answers in files.

NumPy in, NumPy out: what comes out here goes to :func:`unet3d_tutorial.inference.segment` as its
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

#: All that prediction with ONNX Runtime needs, besides this package.
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
#: The name under which an ONNX file keeps its configuration.
CONFIG_KEY = "unet3d_tutorial.config"
#: The settings that a network was trained with and cannot do without, by section.
TRAINED_WITH = {
    "data": ("spacing_mm", "min_val", "max_val", "position"),
    "model": ("in_channels", "num_classes", "channels"),
}
#: The sections that travel with an exported network: all that prediction needs.
EXPORTED_SECTIONS = ("data", "model", "inference")
#: The folder of windows that an Ascend 310 reads, within the one that it is given.
WINDOWS_FOLDER = "00_data"
#: The quietest of ONNX Runtime's levels, 0 to 4: only what ends the process is printed.
FATAL_ONLY = 4
FLOAT32_BYTES = 4


# ------------------------------------------------------------------------------------- ONNX Runtime


def load_onnx(path: str | Path) -> tuple[Predictor, Config]:
    """The network in an ONNX file of :func:`unet3d_tutorial.export.to_onnx`, and its configuration.

    The predictor takes ``(N, C, D, H, W)`` of any N, D, H and W that the network can halve, and
    gives logits ``(N, K, D, H, W)``. Raises ``FileNotFoundError``, or ``ValueError`` if the file is
    another network's.
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
    options.log_severity_level = FATAL_ONLY  # errors come as exceptions, and are not printed too
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own kinds, all different
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
    """Raise ``ValueError`` unless the graph has one input and one output, and their channels fit.

    Their numbers are those of the configuration that the file came with.
    """
    expected = [config.model.in_channels, config.model.num_classes]
    ends = [*session.get_inputs(), *session.get_outputs()]
    channels = [end.shape[1:2] for end in ends]
    if channels != [[number] for number in expected]:
        raise ValueError(
            f"{path}: expected one input and one output, of {expected} channels, found {channels}"
        )


# ---------------------------------------------------------------- the configuration that goes along


def dump_config(config: Config) -> str:
    """The sections data, model and inference as YAML; not those that only training needs."""
    sections = config.to_dict()
    exported = {name: sections[name] for name in EXPORTED_SECTIONS}
    return yaml.safe_dump(exported, default_flow_style=None)


def parse_config(text: str, name: str | Path) -> Config:
    """The inverse of :func:`dump_config`.

    Raises ``ValueError`` that begins with ``name``, the file that ``text`` came from, if it is
    damaged or of another version.
    """
    try:
        return Config.from_dict(yaml.safe_load(text))
    except (ValueError, AttributeError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"{name}: its configuration cannot be read: {error}") from error


def check_trained_with(config: Config, trained: Config, name: str | Path) -> None:
    """Raise ``ValueError`` if ``config`` prepares scans in another way than the network needs.

    ``trained`` is the configuration that it was trained with, ``name`` the file that it is in.
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
    """Write what the network sees of a scan as one ``.bin`` file for each window.

    They are for a device that only reads files. Layout and names are those that the model zoo's
    Unet3d gives to its program for the Ascend 310 (``preprocess.py`` and ``ascend310_infer``,
    mindspore-ai/mindspore, model_zoo/official/cv/unet3d): ``folder/00_data/unet3d_bs1_bt0_N.bin``
    for window N of scan 0 in batches of 1; float32, C order, ``(1, C, *inference.roi_size)``, no
    header. ``folder`` must be empty or not there. Returns the paths.
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

    # The mask means nothing; what counts is that the windows are those asked for later.
    segment(image, write, config)
    return paths


def read_results(image: Volume, folder: str | Path, config: Config) -> Volume:
    """Put the answers that the device left together to a mask on the scan's own grid.

    The zoo's program names the first output of ``unet3d_bs1_bt0_N.bin`` ``unet3d_bs1_bt0_N_0.bin``:
    float32, C order, ``(1, K, *inference.roi_size)``. Raises ``ValueError`` if a file is missing,
    left over, or of another length.
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
    """The zoo's name, without suffix, of a window: batches of 1 (``bs1``), scan 0 (``bt0``)."""
    return f"unet3d_bs1_bt0_{number}"


def _result_name(number: int | str) -> str:
    """The zoo's name of the file with the first output for a window."""
    return f"{_window_name(number)}_0.bin"


def _read_result(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read float32 scores of ``shape``."""
    if not path.is_file():
        raise ValueError(f"{path}: expected the device's result for this window, found no file")
    size = path.stat().st_size
    expected = FLOAT32_BYTES * int(np.prod(shape))
    if size != expected:
        raise ValueError(
            f"{path}: expected {expected} bytes, float32 of shape {shape}, found {size}"
        )
    return np.fromfile(path, np.float32).reshape(shape)
