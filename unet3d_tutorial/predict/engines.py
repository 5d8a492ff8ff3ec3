"""Run an exported network without MindSpore:

ONNX Runtime on this machine, or an Ascend 310 that trades files.

NumPy in, NumPy out: what comes out here goes to :func:`unet3d_tutorial.inference.segment` as its
predictor.
"""

import itertools
from pathlib import Path

import numpy as np
import onnxruntime
import yaml

from ..config import Config
from ..inference import Predictor, segment
from ..volume import Volume

#: all that prediction with ONNX Runtime needs, besides this package
REQUIREMENTS = (
    "lazy_loader",
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
CONFIG_KEY = "unet3d_tutorial.config"  #: where an ONNX file keeps its configuration
#: folder and names of the windows that an Ascend 310 reads
WINDOWS, WINDOW = ("00_data", "unet3d_bs1_bt0_{}")
#: the settings that a network was trained with and cannot do without, by section
TRAINED_WITH = {
    "data": ("spacing_mm", "min_val", "max_val", "position"),
    "model": ("in_channels", "num_classes", "channels"),
}


# ------------------------------------------------------------------------------------- ONNX Runtime


def load_onnx(path: str | Path) -> tuple[Predictor, Config]:
    """The network in an ONNX file that :func:`unet3d_tutorial.export.to_onnx` made, and the
    configuration it came with.

    The predictor takes ``(N, C, D, H, W)`` of any N, D, H and W that the network can halve, and
    gives logits ``(N, K, D, H, W)``. Raises ``FileNotFoundError``, or ``ValueError`` if the file is
    another network's.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such model: {path}")
    try:
        session = onnxruntime.InferenceSession(
            str(path), _quiet_options(), providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's own kinds, all different
        raise ValueError(f"{path} is not an ONNX model: {error}") from error
    stored = session.get_modelmeta().custom_metadata_map.get(CONFIG_KEY)
    if stored is None:
        raise ValueError(
            f"{path}: expected a model that says how scans are prepared for it, found no {CONFIG_KEY} in its "
            "metadata; export it with unet3d export"
        )
    config = parse_config(stored, path)
    _check_channels(session, config, path)
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: np.ascontiguousarray(batch, np.float32)})[
        0
    ], config


def _quiet_options() -> onnxruntime.SessionOptions:
    """Errors come as exceptions; there is no need to print them as well."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return options


def _check_channels(session: onnxruntime.InferenceSession, config: Config, path: Path) -> None:
    """The graph against its own configuration: one input and one output, of as many channels as
    this says.
    """
    expected = [config.model.in_channels, config.model.num_classes]
    found = [
        value.shape[1:2]
        for values in (session.get_inputs(), session.get_outputs())
        for value in values
    ]
    if found != [[n] for n in expected]:
        raise ValueError(
            f"{path}: expected one input and one output, of {expected} channels, found {found}"
        )


# ---------------------------------------------------------------- the configuration that goes along


def dump_config(config: Config) -> str:
    """The sections data, model and inference as YAML; not those that only training needs."""
    sections = config.to_dict()
    return yaml.safe_dump(
        {name: sections[name] for name in ("data", "model", "inference")}, default_flow_style=None
    )


def parse_config(text: str, name: str | Path) -> Config:
    """The inverse of :func:`dump_config`;

    ``ValueError`` with ``name`` if it is damaged or of another version.
    """
    try:
        return Config.from_dict(yaml.safe_load(text))
    except (ValueError, AttributeError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"{name}: its configuration cannot be read: {error}") from error


def check_trained_with(config: Config, trained: Config, name: str | Path) -> None:
    """Raise ``ValueError`` if ``config`` prepares scans in another way than the network ``name``
    was trained with.
    """
    for section, names in TRAINED_WITH.items():
        for setting in names:
            found, expected = (getattr(getattr(c, section), setting) for c in (config, trained))
            if found != expected:
                raise ValueError(
                    f"{section}.{setting}: expected {expected}, with which {name} was trained, found {found}"
                )


# --------------------------------------------------------------------------------------- Ascend 310


def write_windows(image: Volume, folder: str | Path, config: Config) -> list[Path]:
    """Write what the network sees of a scan as one ``.bin`` file a window, for a device that only
    reads files.

    Layout and names are those that the model zoo's Unet3d gives to its program for the Ascend 310
    (``preprocess.py`` and ``ascend310_infer``, mindspore-ai/mindspore,
    model_zoo/official/cv/unet3d): ``folder/00_data/unet3d_bs1_bt0_N.bin`` for window N of scan 0 in
    batches of 1; float32, C order, ``(1, C, *inference.roi_size)``, no header. ``folder`` must be
    empty or not there.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder}: expected an empty folder, found files in it")
    (folder / WINDOWS).mkdir(parents=True, exist_ok=True)
    written: list[Path] = []

    def write(batch: np.ndarray) -> np.ndarray:
        for window in batch:
            written.append(folder / WINDOWS / f"{WINDOW.format(len(written))}.bin")
            window.tofile(written[-1])
        return np.zeros((len(batch), config.model.num_classes, *batch.shape[2:]), np.float32)

    # The mask means nothing; what counts is that it asks for the same windows as later.
    segment(image, write, config)
    return written


def read_results(image: Volume, folder: str | Path, config: Config) -> Volume:
    """Put the answers that the device left together to a mask on the scan's own grid.

    The zoo's program names the first output of ``unet3d_bs1_bt0_N.bin`` ``unet3d_bs1_bt0_N_0.bin``:
    float32, C order, ``(1, K, *inference.roi_size)``. Raises ``ValueError`` if a file is missing,
    left over, or of another length.
    """
    folder, shape = Path(folder), (config.model.num_classes, *config.inference.roi_size)
    unread = sorted(folder.glob(f"{WINDOW.format('*')}_0.bin"))
    numbers = itertools.count()

    def read(batch: np.ndarray) -> np.ndarray:
        return np.stack(
            [_read_result(folder / f"{WINDOW.format(next(numbers))}_0.bin", shape) for _ in batch]
        )

    mask = segment(image, read, config)
    if len(unread) != next(numbers):
        raise ValueError(
            f"{folder}: this scan has fewer windows than the {len(unread)} results; are they another scan's?"
        )
    return mask


def _read_result(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    if not path.is_file():
        raise ValueError(f"{path}: expected the device's result for this window, found no file")
    found, expected = path.stat().st_size, 4 * int(np.prod(shape))
    if found != expected:
        raise ValueError(
            f"{path}: expected {expected} bytes, float32 of shape {shape}, found {found}"
        )
    return np.fromfile(path, np.float32).reshape(shape)
