"""The command line: ``unet3d data | train | evaluate | predict | export | doctor``.

Each command is one call of the package. One function adds the command and its arguments, and the
function below it runs the command. What a command needs is imported when it runs, so that
``unet3d -h`` answers at once.
"""

import argparse
import importlib.metadata
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from .config import Config

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Command: TypeAlias = Callable[[argparse.Namespace], int | None]

SETTING = re.compile(r"[a-z_]+\.[a-z_0-9]+=")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; user errors become one line on standard error and exit code 2."""
    parser, words = _find_command(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_intermixed_args(words)
    _sort_settings(parser, options)
    try:
        return options.run(options) or 0
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        message = " ".join(str(error).split())
        print(f"unet3d: {message}", file=sys.stderr, flush=True)
        if type(error).__name__ == "WorkerKilled":
            os._exit(2)  # MindSpore would wait for the dead process, or crash on its way out
        return 2
    except KeyboardInterrupt:
        print(
            "unet3d: interrupted; the same command continues from what is finished",
            file=sys.stderr,
        )
        return 130


def _find_command(words: Sequence[str]) -> tuple[argparse.ArgumentParser, list[str]]:
    """Return the parser of the command that ``words`` name, and the words after the name.

    The command's own parser then reads those words with ``parse_intermixed_args``, because
    settings, scans and options may come in any order. argparse does not support that for a parser
    with commands below it. If no command is named, the parser of the whole program prints the help
    or an error, and exits.
    """
    program = argparse.ArgumentParser(
        prog="unet3d", description="A 3D U-Net for chest CT in MindSpore."
    )
    program.add_argument("--version", action=_ShowVersion, help="show the version and exit")
    commands = program.add_subparsers(required=True, metavar="COMMAND")
    data = commands.add_parser("data", help="make, convert or fetch data")
    kinds = data.add_subparsers(required=True, metavar="KIND")
    for add in (_add_phantom, _add_luna16, _add_check, _add_sample):
        add(kinds)
    for add in (_add_train, _add_evaluate, _add_predict, _add_export, _add_doctor):
        add(commands)

    first, second = [*words, "", ""][:2]
    if first == "data" and second in kinds.choices:
        return kinds.choices[second], list(words[2:])
    if first != "data" and first in commands.choices:
        return commands.choices[first], list(words[1:])
    program.parse_args(words)
    program.error("expected a command")


class _ShowVersion(argparse.Action):
    """Print the version of the installed package."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(parser.prog, importlib.metadata.version("unet3d-tutorial"))
        parser.exit()


# -------------------------------------------------------------------------------------------- data


def _add_phantom(commands: Commands) -> None:
    command = _add(
        commands,
        "phantom",
        _run_phantom,
        "make synthetic chest CTs and convert them for training",
    )
    command.add_argument(
        "--n",
        type=int,
        default=190,
        help="number of phantoms, ten of them for validation (default: %(default)s)",
    )
    command.add_argument(
        "--seed",
        type=int,
        default=0,
        help="the same seed gives the same phantoms (default: %(default)s)",
    )
    _add_settings(command, preset="quick")


def _run_phantom(options: argparse.Namespace) -> None:
    from .luna16.conversion import convert
    from .phantom.recipe import write_luna16

    target = Path(_config(options).data.data_path)
    source = write_luna16(target.with_name(target.name + "-luna16"), n=options.n, seed=options.seed)
    print(convert(source, target))
    (target / "done").touch()


def _add_luna16(commands: Commands) -> None:
    command = _add(
        commands,
        "luna16",
        _run_luna16,
        "fetch what is missing of LUNA16 and convert it to NIfTI, train and val",
        details="Fetch what is missing of LUNA16 from Zenodo (about 120 GB once unpacked), "
        "unpack it, and convert it to NIfTI. After an interruption, the same command continues.",
    )
    command.add_argument(
        "source",
        type=Path,
        help="folder with subset0..9 and seg-lungs-LUNA16, or their .zip or .rar; created if it "
        "is missing",
    )
    command.add_argument(
        "destination", type=Path, help="folder for train/{image,seg} and val/{image,seg}"
    )
    command.add_argument(
        "--subsets",
        type=int,
        nargs="+",
        default=range(10),
        metavar="N",
        help="fetch only these of 0 to 9 (default: all); what is there is converted in any case",
    )
    command.add_argument(
        "--no-fetch", action="store_true", help="convert what is there; needs no network"
    )
    command.add_argument(
        "--processes",
        type=int,
        help="number of processes that convert (default: one for each core)",
    )
    command.add_argument(
        "--skip-bad", action="store_true", help="report unreadable scans, but do not fail"
    )


def _run_luna16(options: argparse.Namespace) -> None:
    from .luna16.conversion import convert

    if not options.no_fetch:
        from .luna16.download import download_luna16

        download_luna16(options.source, options.subsets)
    conversion = convert(
        options.source,
        options.destination,
        skip_bad=options.skip_bad,
        processes=options.processes,
    )
    print(conversion)


def _add_check(commands: Commands) -> None:
    command = _add(
        commands,
        "check",
        _run_check,
        "list all cases with sizes, HU, volumes in mL, and what is odd; exit code 1 if a case "
        "is unusable",
    )
    command.add_argument(
        "folder", type=Path, metavar="DIR", help="folder with train/{image,seg} and val/{image,seg}"
    )
    command.add_argument(
        "--processes", type=int, help="number of processes that read (default: one for each core)"
    )


def _run_check(options: argparse.Namespace) -> int:
    from .luna16.checks import check

    report = check(options.folder, processes=options.processes)
    print(report)
    return 1 if report.unusable else 0


def _add_sample(commands: Commands) -> None:
    _add(commands, "sample", _run_sample, "fetch the real chest CT into the cache")


def _run_sample(options: argparse.Namespace) -> None:
    from .sample_ct import fetch

    print(fetch())


# ------------------------------------------------------------------------------ training and scores


def _add_train(commands: Commands) -> None:
    command = _add(
        commands,
        "train",
        _run_train,
        "train the network; after an interruption, the same command continues the run",
    )
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what is in train.output_path and start afresh",
    )
    _add_settings(command, preset="quick")


def _run_train(options: argparse.Namespace) -> None:
    from .training import train

    result = train(_config(options), overwrite=options.overwrite)
    scores = []
    for name, values in result.validation.items():
        if name != "step":
            scores.append(f"{name} {values[-1]:.3f}")
    print(f"{result.checkpoint}: Dice on held-out volumes {', '.join(scores)}")


def _add_evaluate(commands: Commands) -> None:
    command = _add(
        commands,
        "evaluate",
        _run_evaluate,
        "score a checkpoint against the classical baseline: tables, CSV, box plots",
    )
    command.add_argument(
        "--checkpoint",
        type=Path,
        help="weights (default: those of the run); the results are written next to them, "
        "or to train.output_path if it is set",
    )
    command.add_argument(
        "--cases",
        type=Path,
        metavar="FOLDER",
        help="score the cases of this folder, with image/ and seg/, in place of the real CT and "
        "the held-out phantoms",
    )
    _add_settings(command)


def _run_evaluate(options: argparse.Namespace) -> None:
    from .predict.command import checkpoint_and_config
    from .predict.evaluate import evaluate_run

    checkpoint, config = checkpoint_and_config(
        options.checkpoint, _given_config(options), options.settings
    )
    print(evaluate_run(config, checkpoint, options.cases))


# --------------------------------------------------------------------------- prediction and export


def _add_predict(commands: Commands) -> None:
    command = _add(
        commands,
        "predict",
        _run_predict,
        "segment scans: a mask on each scan's own grid, and volumes in mL",
    )
    command.add_argument(
        "scans",
        nargs="+",
        metavar="SCAN",
        help="NIfTI, MetaImage, NRRD or a folder of DICOM slices, in HU, of any orientation and "
        "spacing; also patterns such as 'ward/*.nii.gz'",
    )
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="mask to write, .nii.gz: 0 background, 1 left lung, 2 right lung, 3 trachea; or a "
        "folder for the masks of several scans",
    )
    command.add_argument(
        "--backend",
        choices=("mindspore", "onnx", "310"),
        default="mindspore",
        help="what runs the network: MindSpore; ONNX Runtime, which needs no MindSpore; or an "
        "Ascend 310, whose answers are in export.post_result_path (default: %(default)s)",
    )
    command.add_argument(
        "--checkpoint",
        type=Path,
        help="weights: .ckpt, or .onnx with --backend onnx (default: the run's)",
    )
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="replace masks that exist; without it a single file is refused, and the finished "
        "masks in a folder are kept",
    )
    _add_series(command)
    _add_configuration(command)
    command.epilog = "Settings may follow as SECTION.NAME=VALUE, such as inference.overlap=0.5."


def _run_predict(options: argparse.Namespace) -> None:
    from .predict.command import mask_jobs, scan_segmenter, write_masks

    jobs = mask_jobs(options.scans, options.output, overwrite=options.overwrite)
    segment_scan = scan_segmenter(
        options.backend, options.checkpoint, _given_config(options), options.settings
    )
    lines = write_masks(jobs, segment_scan, series=options.series, overwrite=options.overwrite)
    for line in lines:
        print(line, flush=True)


def _add_export(commands: Commands) -> None:
    command = _add(commands, "export", _run_export, "write the trained network as ONNX or MINDIR")
    command.add_argument("--checkpoint", type=Path, help="weights (default: those of the run)")
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        help="file to write, .onnx or .mindir (default: export.file_name next to the checkpoint, "
        "with the suffix of export.file_format)",
    )
    command.add_argument(
        "--fixed",
        action="store_true",
        help="fix the batch size to 1 and the size of the window, for devices that compile ahead "
        "of time",
    )
    command.add_argument(
        "--windows",
        type=Path,
        metavar="SCAN",
        help="in place of the network, write this scan's windows to export.pre_result_path",
    )
    _add_series(command)
    _add_settings(command)


def _run_export(options: argparse.Namespace) -> None:
    from .predict.command import checkpoint_and_config, export_windows

    checkpoint, config = checkpoint_and_config(
        options.checkpoint, _given_config(options), options.settings
    )
    if options.windows:
        print(export_windows(options.windows, config, series=options.series))
        return
    from .export import export_checkpoint

    print(export_checkpoint(checkpoint, config, options.output, fixed=options.fixed))


# ------------------------------------------------------------------------------------------- doctor


def _add_doctor(commands: Commands) -> None:
    command = _add(
        commands, "doctor", _run_doctor, "check the installation, its settings and its speed"
    )
    command.add_argument(
        "--seconds", type=float, default=10.0, help="how long to measure (default: %(default)s)"
    )


def _run_doctor(options: argparse.Namespace) -> int:
    from .doctor import examine, report

    findings = examine(options.seconds)
    print(report(findings))
    return int(any(finding.remedy for finding in findings))


# ------------------------------------------------------------ what several commands have in common


def _add(
    commands: Commands, name: str, run: Command, text: str, *, details: str = ""
) -> argparse.ArgumentParser:
    """Add a command, with ``text`` for the list of commands and ``details`` for its own help.

    ``text`` is used for both if ``details`` is empty. ``run`` is called with the options.
    """
    command = commands.add_parser(name, help=text, description=details or text)
    command.set_defaults(run=run)
    return command


def _add_series(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--series", metavar="UID", help="which series of a DICOM folder: its UID or the end of it"
    )


def _add_settings(command: argparse.ArgumentParser, *, preset: str | None = None) -> None:
    """Add the options of :func:`_add_configuration`, and settings as arguments."""
    _add_configuration(command, preset=preset)
    command.add_argument(
        "settings", nargs="*", metavar="SETTING", help="SECTION.NAME=VALUE, such as train.lr=1e-3"
    )


def _add_configuration(command: argparse.ArgumentParser, *, preset: str | None = None) -> None:
    """Add ``--preset`` and ``--config``.

    ``preset`` is the default of ``--preset``; ``None`` means the settings that the network was
    trained with.
    """
    default = preset or "those that the network was trained with"
    command.add_argument(
        "--preset",
        metavar="NAME",
        default=preset,
        help=f"settings to start from, quick or luna16 (default: {default})",
    )
    command.add_argument(
        "--config", type=Path, help="YAML file with settings, in place of a preset"
    )


def _sort_settings(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Separate settings from scans where both may be given, and refuse words that are neither.

    Among scans, a word of the form ``section.name=value`` is a setting, unless a file of that name
    exists.
    """
    if "scans" in options:
        words, options.scans, options.settings = options.scans, [], []
        for word in words:
            if SETTING.match(word) and not os.path.exists(word):
                options.settings.append(word)
            else:
                options.scans.append(word)
        if not options.scans:
            parser.error("the following arguments are required: SCAN")
    elif "settings" in options:
        wrong = [word for word in options.settings if "=" not in word]
        if wrong:
            parser.error(f"unrecognized arguments: {' '.join(wrong)}")


def _config(options: argparse.Namespace) -> "Config":
    """The configuration that ``--preset``, ``--config`` and the settings describe."""
    from .config import Config

    if options.config:
        return Config.load(options.config, options.settings)
    return Config.preset(options.preset).override(options.settings)


def _given_config(options: argparse.Namespace) -> "Config | None":
    """The configuration that the options name; ``None`` means that of the network."""
    return _config(options) if options.config or options.preset else None


if __name__ == "__main__":
    sys.exit(main())
