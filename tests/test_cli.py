"""The command line: files in, files out, one line and exit code 2 for what cannot work."""

import re
import subprocess
import sys

import pytest

from unet3d_tutorial.cli import main
from unet3d_tutorial.config import PRESETS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "none.nii.gz", "-o", "m.nii.gz"], "no such file: none.nii.gz"),
        (["predict", "none.nii.gz", "-o", "m"], "no such file: none.nii.gz"),
        (["export", "-o", "m.pt"], "ends in .onnx or .mindir, found m.pt"),
        (["export"], "no such checkpoint: runs/quick/unet3d.ckpt"),
        (["train", "train.lrr=1"], "did you mean 'lr'"),
        (["train", "--preset", "quik"], "unknown preset 'quik'; there are quick, luna16"),
        (
            ["train", "data.data_path=nowhere"],
            "nowhere/train/image: expected .nii.gz files, found none",
        ),
        (
            ["data", "luna16", "nowhere", "somewhere", "--no-fetch"],
            "nowhere is not in LUNA16's layout",
        ),
        (
            ["data", "luna16", "nowhere", "somewhere", "--subsets", "10"],
            "expected numbers from 0 to 9, found 10",
        ),
        (["data", "check", "nowhere"], "nowhere: expected .nii.gz files in image and seg"),
        (["data", "phantom", "--n", "3"], "at least 20 phantoms"),
    ],
)
def test_what_cannot_work_is_one_line_and_exit_code_2(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert (
        message in error and error.startswith("unet3d: ") and len(error.strip().splitlines()) == 1
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [["train", "--fast"], ["train", "word"], ["data", "sample", "train.lr=1"]]
)
def test_unknown_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert (
        stop.value.code == 2
        and f"unrecognized arguments: {arguments[-1]}" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["data"],
        ["train"],
        ["evaluate"],
        ["predict"],
        ["export"],
        ["doctor"],
        ["data", "phantom"],
        ["data", "luna16"],
        ["data", "check"],
    ],
)
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "-h"])
    assert stop.value.code == 0 and "usage: unet3d" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert re.fullmatch(r"unet3d \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_help_names_every_preset(capsys):
    with pytest.raises(SystemExit):
        main(["train", "-h"])
    text = capsys.readouterr().out
    assert all(preset in text for preset in PRESETS)


def test_help_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from unet3d_tutorial.cli import main\n"
        "try:\n"
        "    main(['-h'])\n"
        "finally:\n"
        "    print(*sorted({'mindspore', 'numpy', 'pydantic', 'tabulate'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: unet3d") and done.stdout.endswith("\n\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["train.lr=1", "--overwrite", "train.lrr=2"],
        ["--overwrite", "train.lrr=2", "--preset", "luna16", "train.lr=1"],
        ["--preset=luna16", "train.lr=1", "train.lrr=2"],
    ],
)
def test_settings_and_options_come_in_any_order(arguments, capsys):
    assert main(["train", *arguments]) == 2
    assert "'lrr'; did you mean 'lr'?" in capsys.readouterr().err


def test_scans_and_settings_come_in_any_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.n=1").mkdir()
    arguments = ["data.n=1", "train.lr=1", "-o", "masks", "none.nii.gz", "train.seed=2"]
    assert main(["predict", *arguments]) == 2
    assert capsys.readouterr().err == "unet3d: no such file: none.nii.gz\n"
    with pytest.raises(SystemExit):
        main(["predict", "-o", "masks", "train.lr=1"])
    assert "the following arguments are required: SCAN" in capsys.readouterr().err


def test_an_interruption_is_one_line_and_exit_code_130(monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("unet3d_tutorial.luna16.checks.check", interrupt)
    assert main(["data", "check", "nowhere"]) == 130
    assert "the same command continues" in capsys.readouterr().err
