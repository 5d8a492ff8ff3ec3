"""The command line: ``unet3d data | train | evaluate | predict | export``. Each command is one call of the package."""

import argparse
import sys
from pathlib import Path

from .config import PRESETS, Config


def main(arguments: list[str] | None = None) -> int:
    """Run one command; user errors become one line on standard error and exit code 2."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)  # settings stand last, which argparse alone cannot do
    if wrong := [text for text in rest if text.startswith("-") or "=" not in text or "preset" not in options]:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    options.overrides = rest
    try:
        return options.run(options) or 0
    except (ValueError, OSError, RuntimeError) as error:
        print(f"unet3d: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("unet3d: interrupted; the same command goes on from what is finished", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="unet3d", description="A 3D U-Net for chest CT in MindSpore.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    data = commands.add_parser("data", help="make, convert or fetch data").add_subparsers(required=True, metavar="KIND")
    phantom = _command(data, "phantom", _phantom, "make synthetic chest CTs and convert them for training")
    phantom.add_argument("--n", type=int, default=190,
                         help="number of phantoms, ten of them to validate (default: %(default)s)")
    phantom.add_argument("--seed", type=int, default=0, help="the same seed gives the same phantoms (default: 0)")
    luna16 = data.add_parser("luna16", help="convert a folder in LUNA16's layout to NIfTI, train and val")
    luna16.add_argument("source", type=Path, help="folder with subset0..9 and seg-lungs-LUNA16")
    luna16.add_argument("destination", type=Path, help="folder for train/{image,seg} and val/{image,seg}")
    luna16.add_argument("--skip-bad", action="store_true", help="report unreadable scans, but do not fail")
    luna16.set_defaults(run=_luna16)
    data.add_parser("sample", help="fetch the real chest CT into the cache").set_defaults(run=_sample)

    train = _command(commands, "train", _train, "train the network")
    train.add_argument("--overwrite", action="store_true", help="replace a finished run of another configuration")
    evaluate = _command(commands, "evaluate", _evaluate, "score a checkpoint and the classical baseline on the real CT")
    evaluate.add_argument("--checkpoint", type=Path, help="weights (default: those of the run)")
    _predict_parser(commands)
    export = _command(commands, "export", _export, "write the trained network as ONNX or MINDIR",
                      preset=None)
    export.add_argument("--checkpoint", type=Path, help="weights (default: those of the run)")
    export.add_argument("-o", "--output", type=Path, help="file to write, .onnx or .mindir (default: "
                        "export.file_name beside the checkpoint, with the suffix of export.file_format)")
    export.add_argument("--fixed", action="store_true", help="fix batch size 1 and the window's size, for devices that "
                        "compile ahead")
    export.add_argument("--windows", type=Path, metavar="SCAN", help="in place of the network, write this scan's windows to "
                        "export.pre_result_path")
    return parser


def _predict_parser(commands) -> None:
    predict = _command(commands, "predict", _predict, "segment scans: a mask on each scan's own grid, and volumes in mL",
                       preset=None)
    predict.add_argument("scans", nargs="+", metavar="SCAN", help="NIfTI, MetaImage, NRRD or a folder of DICOM slices, in "
                         "HU, of any orientation and spacing; patterns such as 'ward/*.nii.gz' too")
    predict.add_argument("-o", "--output", type=Path, required=True, help="mask to write, .nii.gz: 0 background, "
                         "1 left lung, 2 right lung, 3 trachea; or a folder for the masks of several scans")
    predict.add_argument("--backend", choices=("mindspore", "onnx", "310"), default="mindspore",
                         help="what runs the network: MindSpore; ONNX Runtime, which needs no MindSpore; or an Ascend 310, "
                         "whose answers lie in export.post_result_path (default: mindspore)")
    predict.add_argument("--checkpoint", type=Path, help="weights: .ckpt, or .onnx with --backend onnx (default: the run's)")
    predict.add_argument("--series", metavar="UID", help="which series of a DICOM folder: its UID or the end of it")
    predict.add_argument("--overwrite", action="store_true", help="replace existing output files")


def _command(parent, name: str, run, text: str, *, preset: str | None = "quick") -> argparse.ArgumentParser:
    command = parent.add_parser(name, help=text, description=text,
                                epilog="Settings may follow as SECTION.NAME=VALUE, such as train.lr=1e-3.")
    command.add_argument("--preset", choices=PRESETS, default=preset, help="settings to start from (default: "
                         f"{preset or 'those that the network was trained with'})")
    command.add_argument("--config", type=Path, help="YAML file with settings, in place of a preset")
    command.set_defaults(run=run)
    return command


def _config(options: argparse.Namespace) -> Config:
    if options.config:
        return Config.load(options.config, options.overrides)
    return Config.preset(options.preset).override(options.overrides)


def _phantom(options: argparse.Namespace) -> None:
    from .luna16 import convert
    from .phantom import write_luna16

    target = Path(_config(options).data.data_path)
    source = write_luna16(target.with_name(target.name + "-luna16"), n=options.n, seed=options.seed)
    print(convert(source, target))
    (target / "done").touch()


def _luna16(options: argparse.Namespace) -> None:
    from .luna16 import convert

    print(convert(options.source, options.destination, skip_bad=options.skip_bad))


def _sample(options: argparse.Namespace) -> None:
    from .sample_ct import fetch

    print(fetch())


def _train(options: argparse.Namespace) -> None:
    from .training import train

    result = train(_config(options), overwrite=options.overwrite)
    last = {name: values[-1] for name, values in result.validation.items()}
    print(f"{result.checkpoint}: Dice on held-out volumes " + ", ".join(f"{k} {v:.3f}" for k, v in last.items()))


def _evaluate(options: argparse.Namespace) -> None:
    from .pipeline import evaluate_run

    print(evaluate_run(_config(options), options.checkpoint))


def _predict(options: argparse.Namespace) -> None:
    from .prediction import plan, predict_files, scan_segmenter

    jobs = plan(options.scans, options.output, overwrite=options.overwrite)
    segment = scan_segmenter(options.backend, options.checkpoint, _given_config(options), options.overrides)
    for line in predict_files(jobs, segment, series=options.series):
        print(line, flush=True)


def _export(options: argparse.Namespace) -> None:
    from .prediction import export_windows, settle

    checkpoint, config = settle(options.checkpoint, _given_config(options), options.overrides)
    if options.windows:
        print(export_windows(options.windows, config))
    else:
        from .export import export_checkpoint

        print(export_checkpoint(checkpoint, config, options.output, fixed=options.fixed))


def _given_config(options: argparse.Namespace) -> Config | None:
    """The configuration that was asked for, or ``None`` for that of the network."""
    return _config(options) if options.config or options.preset else None


if __name__ == "__main__":
    sys.exit(main())
