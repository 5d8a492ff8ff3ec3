"""What the viewer refuses, counts and packs; tests/browser has the browser's side."""

import base64
import json
import re
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import nbformat
import numpy as np
import pytest

from notebooks import clean
from unet3d_tutorial import metrics, viewer
from unet3d_tutorial.labels import COLORS, STRUCTURES
from unet3d_tutorial.view.description import describe, legend
from unet3d_tutorial.view.page import NO_KEY
from unet3d_tutorial.viewer import SliceViewer
from unet3d_tutorial.volume import Volume

SHAPE = (12, 10, 8)
SPACING = (0.8, 0.9, 2.5)
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(-1000, 1500, SHAPE).astype(np.int16)
LABEL = RNG.integers(0, 4, SHAPE).astype(np.uint8)
PREDICTION = RNG.integers(0, 4, SHAPE).astype(np.uint8)


def stored(html: str) -> tuple[dict, np.ndarray, list[np.ndarray]]:
    """Description, values and labels of a stored viewer, read as the browser does."""
    meta = json.loads(re.search(r'class="meta">(.*?)</script>', html)[1])
    packed = np.frombuffer(
        zlib.decompress(base64.b64decode(re.search(r'class="volume">(.*?)</script>', html)[1])),
        np.uint8,
    )
    parts = packed.reshape(-1, *meta["shape"][::-1])
    values = meta["offset"] + meta["step"] * (parts[0] + 256 * parts[1].astype(float))
    return meta, values.T, [part.T for part in parts[2:]]


# ---------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": IMAGE[0]}, r"image: expected a 3-D volume .*\(10, 8\)"),
        ({"image": IMAGE[None]}, r"image: .*\(1, 12, 10, 8\)"),
        ({"image": IMAGE[:0]}, r"image: .*\(0, 10, 8\)"),
        (
            {"image": IMAGE.astype(complex)},
            r"image: expected real numbers, found complex128 of shape \(12, 10, 8\)",
        ),
        (
            {"image": np.where(IMAGE > 1490, np.nan, IMAGE)},
            r"image of shape \(12, 10, 8\): expected finite .* found \d+ NaN",
        ),
        ({"image": np.where(IMAGE > 1490, -np.inf, IMAGE)}, "NaN or infinite"),
        (
            {"label": LABEL[1:]},
            r"label: expected the image's shape \(12, 10, 8\), found \(11, 10, 8\)",
        ),
        (
            {"prediction": LABEL[..., 0]},
            r"prediction: expected the image's shape \(12, 10, 8\), found \(12, 10\)",
        ),
        ({"prediction": {"A": LABEL, "B": LABEL[1:]}}, r"prediction 'B': .*\(11, 10, 8\)"),
        (
            {"prediction": {"A": LABEL, "B": LABEL, "C": LABEL}},
            r"one or two to compare, found 3: \['A', 'B', 'C'\]",
        ),
        (
            {"label": LABEL + 3},
            r"label of shape \(12, 10, 8\): expected the values 0 and \[1, 2, 3\], "
            r"found \[4, 5, 6\]",
        ),
        ({"label": LABEL.astype(np.int16) - 1}, r"found \[-1\]"),
        ({"label": LABEL.astype(np.int32) * 1000}, r"found \[1000, 2000, 3000\]"),
        (
            {"label": LABEL / 2},
            r"label: expected whole numbers, found fractions or NaN in float64 "
            r"of shape \(12, 10, 8\)",
        ),
        ({"label": np.full(SHAPE, np.nan)}, "fractions or NaN"),
        ({"label": LABEL.astype(str)}, "label: expected whole numbers, found <U"),
        (
            {"spacing_mm": None},
            r"expected spacing_mm or affine for an image of shape \(12, 10, 8\), found neither",
        ),
        ({"affine": np.eye(4)}, "found spacing_mm and affine"),
        (
            {"spacing_mm": (1, 0, 1)},
            r"spacing_mm: expected three lengths above 0 mm, found \(1, 0, 1\)",
        ),
        ({"spacing_mm": (1, -1, 1)}, "above 0 mm"),
        ({"spacing_mm": (1, np.nan, 1)}, "above 0 mm"),
        ({"spacing_mm": (1, 1)}, "three lengths"),
        ({"spacing_mm": None, "affine": np.zeros((4, 4))}, "affine: expected 4 x 4"),
        ({"spacing_mm": None, "affine": np.eye(3)}, "affine: expected 4 x 4"),
        ({"image": Volume(IMAGE, np.eye(4))}, "spacing_mm: a Volume has its own affine"),
        (
            {"label": Volume(LABEL, np.diag([1, 1, 1, 1.0]))},
            "label: expected the image's affine .* found a grid .* mm away",
        ),
        ({"structures": {0: "background"}}, "label values from 1 to 250"),
        ({"structures": {}}, "label values from 1 to 250"),
        (
            {"window": (400, -1000)},
            r"window: expected two numbers, black below white, found \(400, -1000\)",
        ),
    ],
)
def test_bad_input_is_refused(arguments: dict, message: str) -> None:
    sound = {"image": IMAGE, "label": LABEL, "spacing_mm": SPACING}
    with pytest.raises(ValueError, match=message):
        SliceViewer(**{**sound, **arguments})


def test_a_budget_that_no_page_fits_is_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"shape \(12, 10, 8\) takes \d+ bytes at its coarsest, found a budget of 1000",
    ):
        SliceViewer(IMAGE, spacing_mm=SPACING, max_bytes=1000).to_html()


def test_a_label_may_differ_in_its_place_by_rounding() -> None:
    affine = np.diag([*SPACING, 1.0])
    affine[2, 3] = 0.02
    scene = SliceViewer(IMAGE, Volume(LABEL, affine), spacing_mm=SPACING).scene
    assert np.array_equal(scene.truth, LABEL)


def test_booleans_are_label_1_and_whole_floats_are_taken() -> None:
    _, _, (truth,) = stored(SliceViewer(IMAGE, LABEL == 2, spacing_mm=SPACING).to_html())
    assert np.array_equal(truth, LABEL == 2)
    _, _, (truth,) = stored(
        SliceViewer(IMAGE, LABEL.astype(np.float32), spacing_mm=SPACING).to_html()
    )
    assert np.array_equal(truth, LABEL)


def test_a_constant_image_is_shown() -> None:
    meta, values, _ = stored(SliceViewer(np.full(SHAPE, 7.0), spacing_mm=SPACING).to_html())
    assert np.all(values == 7)
    assert meta["window"] == [6, 8]


def test_names_that_hold_html_stay_text() -> None:
    name = "</script><img src=x onerror=alert(1)>"
    html = SliceViewer(
        IMAGE, LABEL > 1, {name: LABEL > 2}, structures={1: name}, spacing_mm=SPACING
    ).to_html()
    assert name not in html and "<img" not in html
    meta, _, _ = stored(html)
    assert meta["predictions"] == [meta["structures"][0]["name"]] == [name]


@pytest.mark.parametrize("name", ["lungs (volume)", "lungs <volume>"])
def test_a_name_cannot_take_the_place_of_the_volume(name: str) -> None:
    meta, values, _ = stored(
        SliceViewer(IMAGE, prediction={name: LABEL}, spacing_mm=SPACING).to_html()
    )
    assert meta["predictions"] == [name] and values.shape == SHAPE


# ----------------------------------------------------------------------------------------- counting


def test_legend_has_the_volumes_and_dice_of_the_metrics() -> None:
    rows = legend(SliceViewer(IMAGE, LABEL, PREDICTION, spacing_mm=SPACING).scene)
    for value, row in enumerate(rows, start=1):
        assert row["name"] == STRUCTURES[value - 1] and row["color"] == COLORS[row["name"]]
        assert row["truth"] == pytest.approx((LABEL == value).sum() * np.prod(SPACING) / 1000)
        assert row["predictions"][0]["volume"] == pytest.approx(
            (PREDICTION == value).sum() * np.prod(SPACING) / 1000
        )
        assert row["predictions"][0]["dice"] == pytest.approx(
            metrics.dice(PREDICTION == value, LABEL == value)
        )


def test_a_tilted_gantry_changes_no_volume() -> None:
    affine = np.diag([*SPACING, 1.0])
    affine[1, 2] = 1.0
    row, *_ = legend(SliceViewer(IMAGE, LABEL, affine=affine).scene)
    assert row["truth"] == pytest.approx((LABEL == 1).sum() * np.prod(SPACING) / 1000)


def test_dice_of_a_structure_that_neither_has_is_none() -> None:
    rows = legend(SliceViewer(IMAGE, LABEL == 1, LABEL == 1, spacing_mm=SPACING).scene)
    assert [row["predictions"][0]["dice"] for row in rows] == [1.0, None, None]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("plane", "axis"), [("axial", 2), ("coronal", 1), ("sagittal", 0)])
def test_counts_slice_by_slice(plane: str, axis: int, order: str) -> None:
    truth, prediction = (np.array(one, order=order) for one in (LABEL, PREDICTION))
    truth[:3], prediction[:3] = 0, 0  # a margin, which is skipped
    one = SliceViewer(IMAGE, truth, {"A": prediction, "B": truth}, spacing_mm=SPACING)
    meta = describe(one.scene)
    others = tuple(other for other in range(3) if other != axis)
    for name, labels in zip(("A", "B"), (prediction, truth), strict=True):
        found = np.array(meta["slices"][plane][["A", "B"].index(name)])
        for value in (1, 2, 3):
            expected = [
                mask.sum(axis=others)
                for mask in (
                    truth == value,
                    labels == value,
                    (truth == value) & (labels == value),
                )
            ]
            assert np.array_equal(found[:, value - 1], np.stack(expected, axis=1))


# ---------------------------------------------------------------------------------------- the grids


def affines() -> dict[str, np.ndarray]:
    ras = np.diag([*SPACING, 1.0])
    ras[:3, 3] = (-30, 20, 5)
    angle = np.radians(20)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    axes = ras.copy()
    axes[:, [0, 1, 2]] = ras[:, [2, 0, 1]] * [-1, 1, -1]
    return {"RAS": ras, "LPS": ras @ np.diag([-1, -1, 1, 1.0]), "IRP": axes, "oblique": turn @ ras}


@pytest.mark.parametrize("name", affines())
def test_a_voxel_keeps_value_and_place(name: str) -> None:
    affine = affines()[name]
    scene = SliceViewer(IMAGE, LABEL, affine=affine).scene
    meta = describe(scene)
    values, labels = (
        np.frombuffer(part, kind).reshape(meta["shape"][::-1]).T
        for part, kind in zip(
            scene.box([[0, n] for n in meta["shape"]]), (np.int16, np.uint8), strict=True
        )
    )
    directions = np.array(meta["affine"])[:3, :3]
    assert (
        np.array_equal(np.abs(directions).argmax(axis=0), [0, 1, 2])
        and (np.diag(directions) > 0).all()
    )
    for shown in np.ndindex(2, 3, 2):
        element = np.rint(np.array(meta["toArray"]) @ [*shown, 1])[:3].astype(int)
        assert values[shown] == IMAGE[tuple(element)] and labels[shown] == LABEL[tuple(element)]
        assert np.array(meta["affine"]) @ [*shown, 1] == pytest.approx(affine @ [*element, 1])


def test_an_oblique_scan_is_announced() -> None:
    notes = {
        name: describe(SliceViewer(IMAGE, affine=affine).scene)["note"]
        for name, affine in affines().items()
    }
    assert "oblique by 20 degrees" in notes["oblique"]
    assert "oblique" not in notes["LPS"]


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64, np.int32, bool])
def test_live_values_are_exact(dtype: type) -> None:
    image = (IMAGE > 0) if dtype is bool else np.abs(IMAGE / 7).astype(dtype)
    scene = SliceViewer(image, spacing_mm=SPACING).scene
    kind = {"int16": np.int16, "float32": np.float32}[describe(scene)["type"]]
    found = np.frombuffer(scene.box([[2, 5], [0, 10], [7, 8]])[0], kind).reshape(1, 10, 3).T
    assert np.array_equal(found, image[2:5, :, 7:8].astype(np.float32))
    assert (kind is np.int16) == (np.dtype(dtype).kind in "iub")


# ---------------------------------------------------------------------------------- the stored page


def smooth_volume(shape: tuple[int, int, int]) -> np.ndarray:
    """Tissue with noise that does not compress: what makes a page large."""
    return np.random.default_rng(1).normal(0, 200, shape).astype(np.int16)


def test_a_page_that_fits_keeps_every_voxel() -> None:
    meta, values, labels = stored(
        SliceViewer(IMAGE, LABEL, PREDICTION, spacing_mm=SPACING).to_html()
    )
    assert meta["shape"] == list(SHAPE)
    assert np.abs(values - IMAGE).max() <= meta["step"] / 2
    assert np.array_equal(labels, [LABEL, PREDICTION])
    assert "mean of" not in meta["note"] and f"steps of {meta['step']:g} HU" in meta["note"]


def hot_spot() -> np.ndarray:
    """Small values all over and large ones in a corner, as in a PET."""
    image = np.random.default_rng(0).gamma(2, 0.1, (40, 40, 40)).astype(np.float32)
    image[1:4, 1:4, 1:4] = np.linspace(50, 400, 27).reshape(3, 3, 3)
    return image


def probabilities() -> np.ndarray:
    """Of a structure that is smaller than a thousandth of the volume."""
    image = np.zeros((40, 40, 40), np.float32)
    image[1, 1, 1:9] = np.linspace(0.05, 0.95, 8)
    return image


@pytest.mark.parametrize(
    "image",
    [
        hot_spot(),
        -hot_spot(),
        probabilities(),
        1e6 * hot_spot().astype(np.float64),
        np.where(hot_spot() > 300, 300_000, 7).astype(np.int32),
        LABEL == 2,
    ],
)
def test_a_page_shows_rare_values_as_they_are(image: np.ndarray) -> None:
    meta, values, _ = stored(SliceViewer(image, spacing_mm=(1, 1, 1), unit="SUV").to_html())
    assert meta["step"] <= np.ptp(image.astype(float)) / 250 or image.dtype == bool
    # Half a step, and rounding to 32 bits.
    assert np.abs(values - image).max() <= 0.51 * meta["step"]


@pytest.mark.parametrize("budget", [150_000, 400_000])
def test_a_page_keeps_its_budget_with_coarser_voxels_and_says_so(budget: int) -> None:
    shape = (90, 80, 41)
    image, label = smooth_volume(shape), (np.indices(shape).sum(axis=0) // 30 % 4).astype(np.uint8)
    html = SliceViewer(image, label, spacing_mm=(1, 1, 2), max_bytes=budget).to_html()
    assert budget / 3 < len(html.encode()) <= budget
    meta, values, (truth,) = stored(html)
    factors = [-(-n // m) for n, m in zip(shape, meta["shape"], strict=True)]
    assert max(factors) > 1 and f"mean of {' x '.join(map(str, factors))} voxels" in meta["note"]
    sizes = zip(meta["shape"], factors, shape, strict=True)
    blocks = [np.minimum(np.arange(m * f).reshape(m, f), n - 1) for m, f, n in sizes]
    mean = image.astype(float)[np.ix_(*(block.ravel() for block in blocks))]
    for axis, factor in enumerate(factors):
        mean = mean.reshape(*mean.shape[:axis], -1, factor, *mean.shape[axis + 1 :]).mean(
            axis=axis + 1
        )
    assert np.abs(values - mean).max() <= meta["step"] / 2 + 1e-3
    middle = [block[:, factor // 2] for block, factor in zip(blocks, factors, strict=True)]
    assert np.array_equal(truth, label[np.ix_(*middle)])
    centre = np.array(meta["affine"]) @ [0, 0, 0, 1]
    assert centre[:3] == pytest.approx(
        [(f - 1) / 2 * s for f, s in zip(factors, (1, 1, 2), strict=True)]
    )
    assert np.sum(meta["slices"]["axial"][0], axis=0)[:, 0].tolist() == [
        int((label == n).sum()) for n in (1, 2, 3)
    ]


def test_a_page_has_all_in_itself(tmp_path: Path) -> None:
    page = SliceViewer(IMAGE, LABEL, spacing_mm=SPACING).save_html(tmp_path / "page.html")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and not re.search(
        r"https?://|\bimport\b[^;]*from|@import|url\(", text
    )
    assert list(tmp_path.iterdir()) == [page]


def outputs(one: SliceViewer, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What a cell shows, output by output."""
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda bundle, raw: shown.append(bundle))
    one._ipython_display_()
    return shown


def test_without_anywidget_the_page_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer, "has_anywidget", lambda: False)
    (page,) = outputs(SliceViewer(IMAGE, spacing_mm=SPACING), monkeypatch)
    assert set(page) == {"text/html", "text/plain"}


def test_the_live_viewer_is_shown_before_the_page_is_packed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("anywidget")
    one = SliceViewer(IMAGE, spacing_mm=SPACING)
    live, page = outputs(one, monkeypatch)
    assert set(live) == {viewer.WIDGET_MIME} and set(page) == {"text/html", "text/plain"}
    assert f'data-key="{one._widget.key}"' in page["text/html"] and one._widget.key != NO_KEY
    assert f'data-key="{NO_KEY}"' in one.to_html()  # a page of its own is never hidden
    still = SliceViewer(IMAGE, spacing_mm=SPACING, live=False)
    assert outputs(still, monkeypatch) == [
        {"text/plain": repr(still), "text/html": still.to_html()}
    ]


def test_the_key_depends_on_the_picture_alone() -> None:
    keys = [
        SliceViewer(image, LABEL, spacing_mm=SPACING)._key
        for image in (IMAGE, IMAGE.copy(), IMAGE + 1)
    ]
    assert keys[0] == keys[1] != keys[2]


def test_a_stored_chapter_keeps_the_page_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("anywidget")
    shown = outputs(SliceViewer(IMAGE, spacing_mm=SPACING), monkeypatch)
    cell = nbformat.v4.new_code_cell(
        "viewer", outputs=[nbformat.v4.new_output("display_data", data=one) for one in shown]
    )
    (stored_cell,) = clean(nbformat.v4.new_notebook(cells=[cell])).cells
    assert [one.data for one in stored_cell.outputs] == [shown[1]]


def test_a_scan_too_large_for_a_browser_is_shown_coarser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer, "MAX_LIVE_BYTES", 1000)
    assert len(outputs(SliceViewer(IMAGE, spacing_mm=SPACING), monkeypatch)) == 1


def test_a_mirrored_label_is_counted_as_its_copy_is() -> None:
    label = np.zeros(SHAPE, np.uint8)
    label[2:5, 3:9, 1:4] = 2
    mirrored = label[::-1, :, ::-1]
    counts = [
        SliceViewer(IMAGE, one, spacing_mm=SPACING).scene.counts
        for one in (mirrored, mirrored.copy())
    ]
    for plane in counts[0]:
        assert (
            np.array_equal(counts[0][plane], counts[1][plane])
            and counts[0][plane].sum() == label.astype(bool).sum()
        )


def test_the_kernel_keeps_no_second_volume() -> None:
    image = smooth_volume((160, 160, 60))
    label = (image > 300).astype(np.uint8)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    one = SliceViewer(image, label, label, spacing_mm=SPACING)
    one._ipython_display_()
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert kept < image.nbytes + 2 * label.nbytes


def test_no_mindspore_is_needed() -> None:
    code = (
        "import sys, unet3d_tutorial.viewer\n"
        "sys.exit('mindspore' in sys.modules or 'matplotlib' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
