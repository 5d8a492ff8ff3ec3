"""From scan files to mask files: what ``unet3d predict`` does.

First :func:`mask_jobs` decides which mask file belongs to which scan. Then :func:`scan_segmenter`
turns a network and its settings into a function from scan to mask, and :func:`write_masks` applies
it. MindSpore is needed only for a MindSpore checkpoint.
"""

import glob
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..config import Config
from ..files.nifti import save_mask
from ..files.scans import read_scan, scan_name
from ..inference import segment
from ..volume import BadScanError, Volume
from .engines import check_trained_with, load_onnx, read_results, write_windows
from .report import kept_line, mask_line

BACKENDS = ("mindspore", "onnx", "310")
MASK_SUFFIX = ".nii.gz"

# ---------------------------------------------------------------------- which scan has which mask


class MaskJob(NamedTuple):
    """A scan to segment, and the file for its mask."""

    scan: Path
    mask: Path


def mask_jobs(
    scans: Sequence[str | Path], output: str | Path, *, overwrite: bool = False
) -> list[MaskJob]:
    """Decide which mask file belongs to which scan; nothing is written.

    ``scans`` may contain patterns such as ``"ward/*.nii.gz"``. ``output`` is the mask of a single
    scan if it ends in ``.nii.gz``, otherwise a folder for masks with the names of the scans.

    Raises ``FileNotFoundError`` for a scan that does not exist, and ``FileExistsError`` if
    ``output`` is an existing mask, unless ``overwrite``; a folder may already contain masks. Raises
    ``ValueError`` if two scans would have the same mask file, or a mask would replace a scan.
    """
    paths, output = scan_paths(scans), Path(output)
    if output.name.endswith(MASK_SUFFIX):
        jobs = [_single_job(paths, output)]
    elif output.is_file() or (output.suffix and not output.is_dir()):
        raise ValueError(
            f"output: expected a folder, or a name that ends in {MASK_SUFFIX}, found {output}"
        )
    else:
        jobs = [MaskJob(scan, output / f"{scan_name(scan)}{MASK_SUFFIX}") for scan in paths]
    _check_masks(jobs)
    is_single = jobs[0].mask == output
    if is_single and output.exists() and not overwrite:
        raise FileExistsError(f"{output} exists already; choose another name or overwrite")
    return jobs


def scan_paths(scans: Sequence[str | Path]) -> list[Path]:
    """Return the paths of scans, with each pattern replaced by its matches, sorted by name.

    A path that exists is never treated as a pattern. Raises ``FileNotFoundError`` if nothing
    matches.
    """
    paths: list[Path] = []
    for scan in map(str, scans):
        matches = [scan] if Path(scan).exists() else sorted(glob.glob(scan))
        if not matches:
            raise FileNotFoundError(f"no such file: {scan}")
        paths += map(Path, matches)
    return paths


def _single_job(scans: list[Path], mask: Path) -> MaskJob:
    if len(scans) > 1:
        raise ValueError(f"output: expected a folder for {len(scans)} scans, found {mask}")
    return MaskJob(scans[0], mask)


def _check_masks(jobs: Iterable[MaskJob]) -> None:
    """Raise ``ValueError`` if a mask would replace a scan or another mask."""
    scan_of: dict[Path, Path] = {}
    for scan, mask in jobs:
        if mask.exists() and mask.samefile(scan):
            raise ValueError(f"{mask}: the mask would replace the scan; choose another output")
        if mask in scan_of:
            raise ValueError(
                f"{mask}: expected one scan for each mask, found {scan_of[mask]} and {scan}"
            )
        scan_of[mask] = scan


# ---------------------------------------------------------------------------------- files to files


def write_masks(
    jobs: Iterable[MaskJob],
    segment_scan: Callable[[Volume], Volume],
    *,
    series: str | None = None,
    overwrite: bool = False,
) -> Iterator[str]:
    """Segment each scan into its file, and yield a line with the volumes in mL after each.

    An existing mask is complete, because it was written completely or not at all. It is kept unless
    ``overwrite``, so an interrupted call can be repeated and continues. A scan that cannot be used
    is skipped and the others are segmented; then :class:`BadScanError` lists the skipped ones. For
    ``series`` see :func:`unet3d_tutorial.files.scans.read_scan`.
    """
    left_out = []
    for scan, path in jobs:
        if path.exists() and not overwrite:
            yield kept_line(path)
            continue
        try:
            mask = segment_scan(read_scan(scan, series=series))
        except (ValueError, OSError) as error:
            left_out.append(str(error))
            continue
        save_mask(mask, path)
        yield mask_line(path, mask)
    if left_out:
        raise BadScanError("; ".join(left_out))


def export_windows(scan: Path, config: Config, *, series: str | None = None) -> str:
    """Write a scan's windows for an Ascend 310, and return a line with their number.

    They are written to ``config.export.pre_result_path``. For ``series`` see
    :func:`unet3d_tutorial.files.scans.read_scan`.
    """
    folder = config.export.pre_result_path
    windows = write_windows(read_scan(scan, series=series), folder, config)
    return f"{folder}: {len(windows)} windows"


# --------------------------------------------------------------------- the network and its settings


def scan_segmenter(
    backend: str,
    checkpoint: Path | None = None,
    config: Config | None = None,
    overrides: Sequence[str] = (),
) -> Callable[[Volume], Volume]:
    """Return a function from scan to mask that runs the network with one of ``BACKENDS``.

    ``checkpoint`` is a ``.ckpt`` file, or a ``.onnx`` file for ``"onnx"``; ``None`` takes that of
    the run. For ``config`` and ``overrides`` see :func:`checkpoint_and_config`.
    """
    if backend == "onnx":
        path = checkpoint or _run_folder(config, overrides) / "unet3d.onnx"
        network, trained = load_onnx(path)
        chosen = config or trained.override(list(overrides))
        check_trained_with(chosen, trained, path)
    else:
        path, chosen = checkpoint_and_config(checkpoint, config, overrides)
    if backend == "310":
        return lambda scan: read_results(scan, chosen.export.post_result_path, chosen)
    if backend == "mindspore":
        from ..runs.networks import trained_predictor

        network = trained_predictor(chosen, path)
    return lambda scan: segment(scan, network, chosen)


def checkpoint_and_config(
    checkpoint: Path | None, config: Config | None, overrides: Sequence[str] = ()
) -> tuple[Path, Config]:
    """Return a checkpoint, the run's if ``None``, and the configuration to use it with.

    If ``config`` is ``None``, it is read from ``config.yaml`` next to the checkpoint, with
    ``train.output_path`` set to the checkpoint's folder and the ``overrides`` applied. Raises
    ``ValueError`` if the configuration prepares scans differently from the training.
    """
    path = checkpoint or _run_folder(config, overrides) / "unet3d.ckpt"
    stored = path.parent / "config.yaml"
    trained = Config.load(stored) if stored.is_file() else None
    if config is None:
        # The run may have been moved since it was trained.
        here = {"train": {"output_path": str(path.parent)}}
        config = (trained or Config()).updated(here).override(list(overrides))
    if trained is not None:
        check_trained_with(config, trained, path)
    return path, config


def _run_folder(config: Config | None, overrides: Sequence[str]) -> Path:
    """The folder of the run.

    Only an override of ``train.output_path`` is used, because the others may be valid only together
    with the settings of the trained network.
    """
    if config is None:
        names = [text.partition("=")[0].strip() for text in overrides]
        pairs = zip(names, overrides, strict=True)
        config = Config().override([text for name, text in pairs if name == "train.output_path"])
    return Path(config.train.output_path)
