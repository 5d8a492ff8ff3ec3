"""The result of a run as text and as a table: short, whatever the run's length."""

from pathlib import Path

from unet3d_tutorial.runs.result import TrainingResult

RESULT = TrainingResult(
    checkpoint=Path("runs/quick/unet3d.ckpt"),
    history={"step": list(range(9000)), "loss": [2.0, *[0.5] * 8998, 0.25]},
    validation={"step": [4500.0, 9000.0], "left lung": [0.5, 0.875], "trachea": [0.0, 0.75]},
)


def test_it_says_in_a_line_where_the_weights_are_and_how_it_went():
    assert repr(RESULT) == (
        "TrainingResult(runs/quick/unet3d.ckpt: 9000 steps, loss 2.000 to 0.250)"
    )


def test_printed_it_has_a_row_for_each_validation():
    lines = str(RESULT).splitlines()
    assert lines[0] == repr(RESULT) and len(lines) == 6
    cells = [cell.strip() for cell in lines[-1].strip("|").split("|")]
    assert cells == ["9000", "0.875", "0.750"]
    assert lines[2].count("Dice of") == 2


def test_in_jupyter_it_is_a_table():
    html = RESULT._repr_html_()
    assert "<table" in html and "0.875" in html and len(html) < 2000


def test_a_run_without_a_step_can_be_shown():
    empty = TrainingResult(Path("unet3d.ckpt"), {"loss": []}, {"step": []})
    assert "0 steps" in str(empty) and "<table" in empty._repr_html_()
