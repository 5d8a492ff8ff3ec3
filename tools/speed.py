"""Make the chart and the table of book/speed.md from benchmarks/results.csv.

``make store`` calls it.

The first side of a measurement is ours, every other one a peer. ``benchmarks/collect.py`` writes
the file.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from results import replace_between

RESULTS, PAGE, FIGURE = (
    Path("benchmarks/results.csv"),
    Path("book/speed.md"),
    Path("book/_static/speed.png"),
)
BETTER, WORSE = "#0072B2", "#D55E00"  # of Okabe and Ito's palette
HIGHER_IS_BETTER = ("crops/s",)
TIMES = ("s", "ms", "crops/s")


@dataclass(frozen=True)
class Measurement:
    """One number: ``what`` was measured in ``unit`` on which ``side``, and whether the ``machine``
    was quiet or shared.
    """

    benchmark: str
    what: str
    side: str
    value: float
    unit: str
    machine: str


@dataclass(frozen=True)
class Comparison:
    """A peer beside ours, the first side of the same measurement."""

    ours: Measurement
    peer: Measurement

    @property
    def ratio(self) -> float:
        """How many times as good ours is: above 1 it is faster, or needs less memory."""
        ratio = self.peer.value / self.ours.value
        return 1 / ratio if self.ours.unit in HIGHER_IS_BETTER else ratio


def load(path: Path = RESULTS) -> list[Measurement]:
    """All measurements, in the order of the file."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Measurement(**{**row, "value": float(row["value"])}) for row in csv.DictReader(file)
        ]


def comparisons(measured: Sequence[Measurement]) -> list[Comparison]:
    """Each peer beside the first side of the same measurement."""
    ours: dict[tuple[str, str], Measurement] = {}
    for each in measured:
        ours.setdefault((each.what, each.unit), each)
    pairs = [Comparison(ours[each.what, each.unit], each) for each in measured]
    return [pair for pair in pairs if pair.ours is not pair.peer]


def tables(measured: Sequence[Measurement]) -> str:
    """Every number as it was measured, in Markdown: those with a peer, then those without one."""
    found = comparisons(measured)
    compared = {(pair.ours.what, pair.ours.unit) for pair in found}
    lines = ["| what | ours | the other | | ours is |", "|:--|--:|:--|--:|:--|"]
    lines += [
        f"| {pair.ours.what} | {shown(pair.ours)} "
        f"| {pair.peer.side} | {shown(pair.peer)} | {verdict(pair)} |"
        for pair in found
    ]
    lines += ["", "Without a counterpart:", "", "| what | |", "|:--|--:|"]
    lines += [
        f"| {each.what} | {shown(each)} |"
        for each in measured
        if (each.what, each.unit) not in compared
    ]
    return "\n".join(lines)


def shown(each: Measurement) -> str:
    """Value and unit, ``"0.22 s"``; in brackets if it is a time from a shared machine."""
    text = f"{each.value:.3g} {each.unit}"
    return f"({text})" if each.machine == "shared" and each.unit in TIMES else text


def verdict(pair: Comparison) -> str:
    """The ratio in words."""
    equal, better, worse = (
        ("as fast", "faster", "slower")
        if pair.ours.unit in TIMES
        else ("as large", "smaller", "larger")
    )
    if f"{max(pair.ratio, 1 / pair.ratio):.2g}" == "1":
        return equal
    return (
        f"{pair.ratio:.2g} times {better}"
        if pair.ratio >= 1
        else f"{1 / pair.ratio:.2g} times {worse}"
    )


def chart(found: Sequence[Comparison]) -> Figure:
    """Bars of the ratios on a logarithmic axis, speed above, memory below; right of the line ours
    is better.
    """
    speed = [pair for pair in found if pair.ours.unit in TIMES]
    memory = [pair for pair in found if pair.ours.unit not in TIMES]
    heights = len(speed) + 1, len(memory) + 1
    size = 9, 1 + 0.32 * sum(heights)  # two lines of text beside each bar
    figure, axes = plt.subplots(
        2, 1, figsize=size, dpi=80, layout="constrained", height_ratios=heights
    )
    for axis, rows, title in zip(
        axes, (speed, memory), ("times as fast", "times less memory"), strict=True
    ):
        bars(axis, rows)
        axis.set_title(f"ours: how many {title}", fontsize=10)
    plt.close(figure)
    return figure


def bars(axis: Axes, rows: Sequence[Comparison]) -> None:
    """One bar a comparison, from 1 to its ratio; worse ones are hatched, so that colour is not
    needed to tell.
    """
    for place, each in enumerate(rows):
        better = each.ratio >= 1
        axis.barh(
            place,
            each.ratio - 1,
            left=1,
            color=BETTER if better else WORSE,
            hatch="" if better else "///",
            edgecolor="white",
            height=0.7,
        )
        axis.annotate(
            f"{each.ratio:.2g}",
            (each.ratio, place),
            (4 if better else -4, 0),
            textcoords="offset points",
            ha="left" if better else "right",
            va="center",
            fontsize=9,
        )
    axis.set_yticks(
        range(len(rows)),
        [f"{each.ours.what}\nbeside {each.peer.side}" for each in rows],
        fontsize=7.5,
    )
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xscale("log")
    low, high = (limit(each.ratio for each in rows) for limit in (min, max))
    axis.set_xlim(min(low, 1) / 1.6, high * 1.6)
    ticks = [
        tick
        for tick in (0.25, 0.5, 1, 2, 4, 10, 30, 100)
        if min(low, 1) / 1.6 <= tick <= high * 1.6
    ]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.axvline(1, color="black", linewidth=1)
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Write the chart, and the table between the page's marks."""
    measured = load()
    replace_between(PAGE, f"\n{tables(measured)}\n", "speed")
    part = FIGURE.with_suffix(".part.png")
    chart(comparisons(measured)).savefig(part)
    part.replace(FIGURE)


if __name__ == "__main__":
    main()
