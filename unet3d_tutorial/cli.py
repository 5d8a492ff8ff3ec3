"""The command line: ``unet3d data | train | evaluate | predict | export | doctor``.

Each is one call of the package.
"""

import argparse
import os
import re
import sys
from pathlib import Path

from .config import PRESETS, Config

SETTING = re.compile(r"[a-z_]+\.[a-z_0-9]+=")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; user errors become one line on standard error and exit code 2."""
    parser = _parser()
    # Settings stand last, which argparse alone cannot do.
    options, rest = parser.parse_known_args(arguments)
    if wrong := [
        text for text in rest if text.startswith("-") or "=" not in text or "preset" not in options
    ]:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    options.overrides = rest
    if "scans" in options:  # where no option parts them, argparse takes the settings for scans
        settings = [
            text for text in options.scans if SETTING.match(text) and not Path(text).exists()
        ]
        options.scans, options.overrides = (
            [text for text in options.scans if text not in settings],
            [*settings, *rest],
        )
        if not options.scans:
            parser.error("the following arguments are required: SCAN")
    try:
        return options.run(options) or 0
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        print(f"unet3d: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        if type(error).__name__ == "WorkerKilled":
            os._exit(2)  # MindSpore would wait for the dead process, or crash on its way out
        return 2
    except KeyboardInterrupt:
        print(
            "unet3d: interrupted; the same command goes on from what is finished", file=sys.stderr
        )
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="unet3d", description="A 3D U-Net for chest CT in MindSpore."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    data = commands.add_parser("data", help="make, convert or fetch data").add_subparsers(
        required=True, metavar="KIND"
    )
    phantom = _command(
        data, "phantom", _phantom, "make synthetic chest CTs and convert them for training"
    )
    phantom.add_argument(
        "--n",
        type=int,
        default=190,
        help="number of phantoms, ten of them to validate (default: %(default)s)",
    )
    phantom.add_argument(
        "--seed", type=int, default=0, help="the same seed gives the same phantoms (default: 0)"
    )
    luna16 = data.add_parser(
        "luna16",
        help="fetch what is missing of LUNA16 and convert it to NIfTI, train and val",
        description="Fetch what is missing of LUNA16 from Zenodo (about 120 GB once unpacked), unpack "
        "it, and convert it to NIfTI. The same command goes on where it was interrupted.",
    )
    luna16.add_argument(
        "source",
        type=Path,
        help="folder with subset0..9 and seg-lungs-LUNA16, or their .zip or .rar; made "
        "if it is not there",
    )
    luna16.add_argument(
        "destination", type=Path, help="folder for train/{image,seg} and val/{image,seg}"
    )
    luna16.add_argument(
        "--subsets",
        type=int,
        nargs="+",
        default=range(10),
        metavar="N",
        help="fetch only these of 0 to 9 (default: all); what is there is converted in any case",
    )
    luna16.add_argument(
        "--no-fetch", action="store_true", help="convert what is there; needs no network"
    )
    luna16.add_argument("--processes", type=int, help="to convert with (default: as many as cores)")
    luna16.add_argument(
        "--skip-bad", action="store_true", help="report unreadable scans, but do not fail"
    )
    luna16.set_defaults(run=_luna16)
    check = data.add_parser(
        "check",
        help="table of all cases: sizes, HU, volumes in mL, and what is odd; exit code 1 if a "
        "case is unusable",
    )
    check.add_argument(
        "folder", type=Path, metavar="DIR", help="folder with train/{image,seg} and val/{image,seg}"
    )
    check.add_argument("--processes", type=int, help="to read with (default: as many as cores)")
    check.set_defaults(run=_check)
    data.add_parser("sample", help="fetch the real chest CT into the cache").set_defaults(
        run=_sample
    )

    train = _command(
        commands,
        "train",
        _train,
        "train the network; the same command goes on with a run that was stopped",
    )
    train.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what is in train.output_path and begin afresh",
    )
    evaluate = _command(
        commands,
        "evaluate",
        _evaluate,
        "score a checkpoint beside the classical baseline: tables, CSV, box plots",
        preset=None,
    )
    evaluate.add_argument(
        "--checkpoint",
        type=Path,
        help="weights (default: those of the run); the results go beside them, "
        "or to the train.output_path that is set",
    )
    evaluate.add_argument(
        "--cases",
        type=Path,
        metavar="FOLDER",
        help="score the cases of this folder, with image/ and "
        "seg/, in place of the real CT and the held-out phantoms",
    )
    _predict_parser(commands)
    export = _command(
        commands, "export", _export, "write the trained network as ONNX or MINDIR", preset=None
    )
    export.add_argument("--checkpoint", type=Path, help="weights (default: those of the run)")
    export.add_argument(
        "-o",
        "--output",
        type=Path,
        help="file to write, .onnx or .mindir (default: "
        "export.file_name beside the checkpoint, with the suffix of export.file_format)",
    )
    export.add_argument(
        "--fixed",
        action="store_true",
        help="fix batch size 1 and the window's size, for devices that compile ahead",
    )
    export.add_argument(
        "--windows",
        type=Path,
        metavar="SCAN",
        help="in place of the network, write this scan's windows to export.pre_result_path",
    )
    _series(export)
    doctor = commands.add_parser(
        "doctor", help="check the installation, its settings and its speed"
    )
    doctor.add_argument(
        "--seconds", type=float, default=10.0, help="how long to measure (default: %(default)s)"
    )
    doctor.set_defaults(run=_doctor)
    return parser


def _predict_parser(commands) -> None:
    predict = _command(
        commands,
        "predict",
        _predict,
        "segment scans: a mask on each scan's own grid, and volumes in mL",
        preset=None,
    )
    predict.add_argument(
        "scans",
        nargs="+",
        metavar="SCAN",
        help="NIfTI, MetaImage, NRRD or a folder of DICOM slices, in "
        "HU, of any orientation and spacing; patterns such as 'ward/*.nii.gz' too",
    )
    predict.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="mask to write, .nii.gz: 0 background, "
        "1 left lung, 2 right lung, 3 trachea; or a folder for the masks of several scans",
    )
    predict.add_argument(
        "--backend",
        choices=("mindspore", "onnx", "310"),
        default="mindspore",
        help="what runs the network: MindSpore; ONNX Runtime, which needs no MindSpore; or an Ascend 310, "
        "whose answers lie in export.post_result_path (default: mindspore)",
    )
    predict.add_argument(
        "--checkpoint",
        type=Path,
        help="weights: .ckpt, or .onnx with --backend onnx (default: the run's)",
    )
    _series(predict)
    predict.add_argument(
        "--overwrite",
        action="store_true",
        help="make anew what is there; without it a file is not "
        "replaced, and a folder's finished masks are kept",
    )


def _series(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--series", metavar="UID", help="which series of a DICOM folder: its UID or the end of it"
    )


def _command(
    parent, name: str, run, text: str, *, preset: str | None = "quick"
) -> argparse.ArgumentParser:
    command = parent.add_parser(
        name,
        help=text,
        description=text,
        epilog="Settings may follow as SECTION.NAME=VALUE, such as train.lr=1e-3.",
    )
    command.add_argument(
        "--preset",
        choices=PRESETS,
        default=preset,
        help="settings to start from (default: "
        f"{preset or 'those that the network was trained with'})",
    )
    command.add_argument(
        "--config", type=Path, help="YAML file with settings, in place of a preset"
    )
    command.set_defaults(run=run)
    return command


def _config(options: argparse.Namespace) -> Config:
    if options.config:
        return Config.load(options.config, options.overrides)
    return Config.preset(options.preset).override(options.overrides)


def _phantom(options: argparse.Namespace) -> None:
    from .luna16.conversion import convert
    from .phantom.recipe import write_luna16

    target = Path(_config(options).data.data_path)
    source = write_luna16(target.with_name(target.name + "-luna16"), n=options.n, seed=options.seed)
    print(convert(source, target))
    (target / "done").touch()


def _luna16(options: argparse.Namespace) -> None:
    from .luna16.conversion import convert

    if not options.no_fetch:
        from .luna16.download import fetch

        fetch(options.source, options.subsets)
    print(
        convert(
            options.source,
            options.destination,
            skip_bad=options.skip_bad,
            processes=options.processes,
        )
    )


def _check(options: argparse.Namespace) -> int:
    from .luna16.checks import check

    found = check(options.folder, processes=options.processes)
    print(found)
    return 1 if found.unusable else 0


def _sample(options: argparse.Namespace) -> None:
    from .sample_ct import fetch

    print(fetch())


def _train(options: argparse.Namespace) -> None:
    from .training import train

    result = train(_config(options), overwrite=options.overwrite)
    last = {name: values[-1] for name, values in result.validation.items() if name != "step"}
    print(
        f"{result.checkpoint}: Dice on held-out volumes "
        + ", ".join(f"{k} {v:.3f}" for k, v in last.items())
    )


def _evaluate(options: argparse.Namespace) -> None:
    from .predict.command import checkpoint_and_config
    from .predict.evaluate import evaluate_run

    checkpoint, config = checkpoint_and_config(
        options.checkpoint, _given_config(options), options.overrides
    )
    print(evaluate_run(config, checkpoint, options.cases))


def _predict(options: argparse.Namespace) -> None:
    from .predict.command import mask_jobs, scan_segmenter, write_masks

    jobs = mask_jobs(options.scans, options.output, overwrite=options.overwrite)
    segment = scan_segmenter(
        options.backend, options.checkpoint, _given_config(options), options.overrides
    )
    for line in write_masks(jobs, segment, series=options.series, overwrite=options.overwrite):
        print(line, flush=True)


def _export(options: argparse.Namespace) -> None:
    from .predict.command import checkpoint_and_config, export_windows

    checkpoint, config = checkpoint_and_config(
        options.checkpoint, _given_config(options), options.overrides
    )
    if options.windows:
        print(export_windows(options.windows, config, series=options.series))
    else:
        from .export import export_checkpoint

        print(export_checkpoint(checkpoint, config, options.output, fixed=options.fixed))


def _given_config(options: argparse.Namespace) -> Config | None:
    """The configuration that was asked for, or ``None`` for that of the network."""
    return _config(options) if options.config or options.preset else None


def _doctor(options: argparse.Namespace) -> int:
    from .doctor import examine, report

    findings = examine(options.seconds)
    print(report(findings))
    return int(any(finding.remedy for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
