"""The command line: files in, files out, one line and exit code 2 for what cannot work."""

import pytest

from unet3d_tutorial.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "none.nii.gz", "-o", "m.nii.gz"], "no such file: none.nii.gz"),
        (["predict", "none.nii.gz", "-o", "m"], "no such file: none.nii.gz"),
        (["export", "-o", "m.pt"], "ends in .onnx or .mindir, found m.pt"),
        (["export"], "no such checkpoint: runs/quick/unet3d.ckpt"),
        (["train", "train.lrr=1"], "did you mean 'lr'"),
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
