"""Curves: what can be said of them without looking."""

from unet3d_tutorial.view.charts import loss_curves


def test_the_curves_of_a_run_are_of_all_its_structures() -> None:
    names = ["left lung", "label 4", "label 5", "label 6"]
    figure = loss_curves(
        {"step": [0, 1], "loss": [2.0, 1.0]},
        {"step": [1, 2], **{name: [0.1, 0.2] for name in names}},
    )
    assert [line.get_label() for line in figure.axes[1].lines] == names
