"""The command line: ``unet3d data | train | evaluate | predict``. Each command is one call of the package."""

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
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        print(f"unet3d: {error}", file=sys.stderr)
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

    train = _command(commands, "train", _train, "train the network; the same command goes on with a run that was stopped")
    train.add_argument("--overwrite", action="store_true", help="replace what is in train.output_path and begin afresh")
    evaluate = _command(commands, "evaluate", _evaluate, "score a checkpoint and the classical baseline on the real CT")
    evaluate.add_argument("--checkpoint", type=Path, help="weights (default: those of the run)")
    predict = _command(commands, "predict", _predict, "segment one scan: NIfTI in, NIfTI out, on the scan's own grid")
    predict.add_argument("scan", type=Path, metavar="SCAN", help=".nii or .nii.gz, HU, any orientation and spacing")
    predict.add_argument("-o", "--output", type=Path, required=True, help="mask to write, .nii.gz: 0 background, "
                         "1 left lung, 2 right lung, 3 trachea")
    predict.add_argument("--checkpoint", type=Path, help="weights (default: those of the run)")
    predict.add_argument("--overwrite", action="store_true", help="replace an existing output file")
    return parser


def _command(parent, name: str, run, text: str) -> argparse.ArgumentParser:
    command = parent.add_parser(name, help=text, description=text,
                                epilog="Settings may follow as SECTION.NAME=VALUE, such as train.lr=1e-3.")
    command.add_argument("--preset", choices=PRESETS, default="quick", help="settings to start from (default: quick)")
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
    from .pipeline import predict_file

    print(predict_file(options.scan, options.output, _config(options), options.checkpoint, overwrite=options.overwrite))


if __name__ == "__main__":
    sys.exit(main())
