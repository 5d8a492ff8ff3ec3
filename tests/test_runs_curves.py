"""What shows a run: event files, the progress bar, a live figure, a page about the time."""

import re

import pytest

from runs import settings, write_data
from unet3d_tutorial.runs.curves import LivePlot, ProgressBar
from unet3d_tutorial.training import train

CURVES = [
    b"train/loss",
    b"train/ce",
    b"train/dice",
    b"train/lr",
    b"train/trachea",
    b"validation/left lung",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of six steps, and the figures that its live plot drew."""
    folder, figures = tmp_path_factory.mktemp("run"), []
    live = LivePlot(title="live")
    live.shown = type("Display", (), {"update": staticmethod(figures.append)})
    train(
        settings(write_data(folder / "data"), folder / "run", "train.enable_profiling=true"),
        watch=live,
    )
    return folder / "run", figures


@pytest.mark.parametrize("kind", ["tensorboard", "mindspore"])
def test_every_curve_is_in_the_event_files(run, kind):
    files = [path.read_bytes() for path in (run[0] / "events" / kind).iterdir()]
    assert len(files) >= 1
    for curve in CURVES:
        name = curve.replace(b" ", b"_") if kind == "tensorboard" else curve  # it writes names so
        # One value a validation, or a step.
        assert sum(content.count(name) for content in files) in (3, 6), name


def test_the_page_about_the_time(run):
    text = (run[0] / "profile.md").read_text(encoding="utf-8")
    assert text.startswith("# Where the time went: 6 steps in ")
    for phase in (
        "steps",
        "validation",
        "checkpoints",
        "waiting for data",
        "everything else",
    ):
        assert f"| {phase} " in text
    operations = text.partition("from MindSpore's profiler")[2]
    row = r"^\| \w+ +\| +\d+ \| +\d+ \| +[\d.]+% \|$"
    assert len(re.findall(row, operations, re.MULTILINE)) == 8
    assert ("Conv3D" in text) != ("a second oneDNN computes them" in text)


def test_the_live_figure_shows_losses_and_validations(run):
    losses, validations = run[1][-1].axes
    assert [line.get_label() for line in validations.get_lines()] == [
        "left lung",
        "right lung",
        "trachea",
    ]
    assert len(run[1]) == 3 and {"total", "cross-entropy", "Dice loss"} <= {
        line.get_label() for line in losses.get_lines()
    }


def test_the_progress_bar_tells_loss_rate_waiting_and_time_left(monkeypatch, capsys):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    bar = ProgressBar(total=4, done=1, show=True)
    bar.bar.disable = False
    bar.update({"loss": 1.25, "lr": 3e-3, "wait": 0.5}, seconds=2.0)
    assert bar.bar.n == 2 and bar.bar.postfix == "loss=1.250, lr=3.0e-03, wait=25%"
    bar.close()
