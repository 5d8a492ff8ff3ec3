"""From files to masks: what ``unet3d predict`` does.

MindSpore is needed only where a MindSpore checkpoint is used.
"""

import glob
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..config import Config
from ..files.nifti import save_mask
from ..files.scans import read_scan, scan_name
from ..inference import segment
from ..labels import STRUCTURES
from ..volume import BadScanError, Volume
from .engines import check_trained_with, load_onnx, read_results, write_windows

BACKENDS = ("mindspore", "onnx", "310")


def predict_files(
    jobs: Iterable[tuple[Path, Path]],
    segment_scan: Callable[[Volume], Volume],
    *,
    series: str | None = None,
    overwrite: bool = False,
) -> Iterator[str]:
    """Segment scan after scan into its output file, and give a line with the volumes in mL after
    each.

    ``jobs`` are pairs of scan and output (:func:`plan`). A mask that is there is finished, for it
    was written whole or not at all: it is kept unless ``overwrite``, so that an interrupted call
    goes on. A scan that cannot be used is left out and the others are segmented; then
    :class:`BadScanError` lists those left out. ``series``: see
    :func:`unet3d_tutorial.files.scans.read_scan`.
    """
    left_out = []
    for scan, output in jobs:
        if output.exists() and not overwrite:
            yield f"{output}: kept, it is there already; --overwrite makes it anew"
            continue
        try:
            mask = segment_scan(read_scan(scan, series=series))
        except (ValueError, OSError) as error:
            left_out.append(str(error))
            continue
        save_mask(mask, output)
        yield f"{output}: {volumes(mask)}"
    if left_out:
        raise BadScanError("; ".join(left_out))


def plan(
    scans: Sequence[str | Path], output: str | Path, *, overwrite: bool = False
) -> list[tuple[Path, Path]]:
    """Say which scan goes to which file:

    ``output`` itself, if it ends in ``.nii.gz``, or a file of the scan's name in it.

    ``scans`` may hold patterns such as ``"ward/*.nii.gz"``. Nothing is written. Raises
    ``FileNotFoundError``; ``FileExistsError`` if ``output`` is a file that is there, unless
    ``overwrite``, while a folder may hold masks already; and ``ValueError`` if two scans would go
    to one file, or a scan would be replaced by its mask.
    """
    found, output = expand(scans), Path(output)
    if output.name.endswith(".nii.gz"):
        if len(found) > 1:
            raise ValueError(f"output: expected a folder for {len(found)} scans, found {output}")
        jobs = [(found[0], output)]
    elif output.is_file() or output.suffix and not output.is_dir():
        raise ValueError(
            f"output: expected a folder, or a name that ends in .nii.gz, found {output}"
        )
    else:
        jobs = [(scan, output / f"{scan_name(scan)}.nii.gz") for scan in found]
    _check_outputs(jobs)
    if output == jobs[0][1] and output.exists() and not overwrite:
        raise FileExistsError(f"{output} exists already; choose another name or overwrite")
    return jobs


def expand(scans: Sequence[str | Path]) -> list[Path]:
    """Paths, with patterns replaced by what they match; a path that exists is never taken for a
    pattern.
    """
    found: list[Path] = []
    for scan in map(str, scans):
        matches = [scan] if Path(scan).exists() else sorted(glob.glob(scan))
        if not matches:
            raise FileNotFoundError(f"no such file: {scan}")
        found += map(Path, matches)
    return found


def _check_outputs(jobs: list[tuple[Path, Path]]) -> None:
    taken: dict[Path, Path] = {}
    for scan, output in jobs:
        if output.exists() and output.samefile(scan):
            raise ValueError(f"{output}: the mask would replace the scan; choose another output")
        if output in taken:
            raise ValueError(
                f"{output}: expected one scan for each mask, found {taken[output]} and {scan}"
            )
        taken[output] = scan


def volumes(mask: Volume) -> str:
    """The volume of each structure in mL:

    ``"left lung 2310 mL, right lung 2645 mL, trachea 41 mL"``.
    """
    counts = [
        np.count_nonzero(mask.array == value)
        for value in range(1, max(len(STRUCTURES), int(mask.array.max())) + 1)
    ]
    names = [
        *STRUCTURES,
        *(f"label {value}" for value in range(len(STRUCTURES) + 1, len(counts) + 1)),
    ]
    return ", ".join(
        f"{name} {count * mask.voxel_ml:.0f} mL" for name, count in zip(names, counts, strict=True)
    )


# --------------------------------------------------------------------- the network and its settings


def scan_segmenter(
    backend: str,
    checkpoint: Path | None = None,
    config: Config | None = None,
    overrides: Sequence[str] = (),
) -> Callable[[Volume], Volume]:
    """A function from scan to mask that runs the network on one of ``BACKENDS``.

    ``checkpoint`` is a ``.ckpt`` file, or a ``.onnx`` file for ``"onnx"``; for the rest see
    :func:`settle`.
    """
    if backend == "onnx":
        path = checkpoint or _run_folder(config, overrides) / "unet3d.onnx"
        network, trained = load_onnx(path)
        config = config or trained.override(overrides)
        check_trained_with(config, trained, path)
    else:
        path, config = settle(checkpoint, config, overrides)
    if backend == "310":
        return lambda scan: read_results(scan, config.export.post_result_path, config)
    if backend == "mindspore":
        from ..runs.networks import trained_predictor

        network = trained_predictor(config, path)
    return lambda scan: segment(scan, network, config)


def settle(
    checkpoint: Path | None, config: Config | None, overrides: Sequence[str] = ()
) -> tuple[Path, Config]:
    """A checkpoint and the configuration to use it with.

    Without ``config`` that is what the network was trained with, as ``config.yaml`` beside the
    checkpoint says, and the ``overrides``; ``train.output_path`` is the checkpoint's folder. Raises
    ``ValueError`` if a given configuration would show it scans of another kind.
    """
    path = checkpoint or _run_folder(config, overrides) / "unet3d.ckpt"
    beside = path.parent / "config.yaml"
    trained = Config.load(beside) if beside.is_file() else None
    if config is None:
        # Wherever the run was while it was trained.
        here = {"train": {"output_path": str(path.parent)}}
        config = (trained or Config()).updated(here).override(overrides)
    if trained is not None:
        check_trained_with(config, trained, path)
    return path, config


def _run_folder(config: Config | None, overrides: Sequence[str]) -> Path:
    """Where the run is; of the overrides only its own counts, for the others may fit no network but
    the trained one.
    """
    own = [text for text in overrides if text.partition("=")[0].strip() == "train.output_path"]
    return Path((config or Config().override(own)).train.output_path)


def export_windows(scan: Path, config: Config, *, series: str | None = None) -> str:
    """Write a scan's windows for an Ascend 310 to ``config.export.pre_result_path``, and say how
    many.
    """
    folder = config.export.pre_result_path
    return f"{folder}: {len(write_windows(read_scan(scan, series=series), folder, config))} windows"
