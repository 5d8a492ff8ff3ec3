"""Time training crops: our pipeline against MONAI's CacheDataset and PersistentDataset.

The crops are cut from cached scans of 512 x 512 x 133 voxels. ``python benchmarks/crops.py``
prints, for each side, seconds of the first pass (which prepares and caches the scans), crops a
second afterwards, and the peak of memory that cannot be given back (anonymous and shared, all
processes). Same files, same steps (RAS, window, random crops, one-hot), same number of workers,
each side in a process of its own, rounds interleaved, medians. Then how long the ``quick`` network
waits for its batches while it trains. Needs torch and MONAI.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

SHAPE = (512, 512, 133)
SIDES = ("ours", "CacheDataset", "PersistentDataset")


def make_scans(folder: Path, count: int) -> None:
    """Scans in the layout of training data: smooth noise in HU and labels 3, 4, 5; axes LPS, as in
    LUNA16.
    """
    from unet3d_tutorial.files.nifti import save_volume
    from unet3d_tutorial.volume import Volume

    affine = np.diag([-0.7, -0.7, 2.5, 1.0])
    for number in range(count):
        rng = np.random.default_rng(number)
        coarse = rng.integers(-1000, 600, [-(-n // 8) for n in SHAPE]).astype(np.int16)
        image = np.kron(coarse, np.ones((8, 8, 8), np.int16))[tuple(slice(n) for n in SHAPE)]
        image = image + rng.integers(-20, 20, SHAPE).astype(np.int16)
        label = np.where(image < -400, rng.integers(3, 6), 0).astype(np.uint8)
        save_volume(Volume(image, affine), folder / "train" / "image" / f"{number}.nii.gz")
        save_volume(Volume(label, affine), folder / "train" / "seg" / f"{number}.nii.gz")


def ours(options: argparse.Namespace) -> Iterator[int]:
    """Passes without end; yields the number of crops of each batch."""
    from unet3d_tutorial.config import Config
    from unet3d_tutorial.dataset import create_dataset

    config = Config.preset("luna16").updated(
        {
            "data": {
                "data_path": str(options.folder),
                "cache_path": str(options.cache),
                "roi_size": options.roi,
                "num_samples": options.samples,
                "augment": False,
                "num_worker": options.workers,
            },
            "train": {"batch_size": 1, "epoch_size": options.passes},
        }
    )
    for image, label in create_dataset(config).create_tuple_iterator(
        output_numpy=True, num_epochs=1
    ):
        assert image.shape == (options.samples, 1, *options.roi) and label.shape[1] == 4
        yield len(image)


def theirs(options: argparse.Namespace) -> Iterator[int]:
    import monai.transforms as m
    from monai.data import CacheDataset, DataLoader, PersistentDataset, list_data_collate

    both = ["image", "label"]
    steps = m.Compose(
        [
            m.LoadImaged(both, image_only=True),
            m.EnsureChannelFirstd(both),
            m.Orientationd(both, axcodes="RAS"),
            m.MapLabelValued("label", [0, 3, 4, 5], [0, 1, 2, 3]),
            m.ScaleIntensityRanged("image", -500, 1000, 0, 1, clip=True),
            m.RandSpatialCropSamplesd(both, options.roi, options.samples, random_size=False),
            m.AsDiscreted("label", to_onehot=4),
        ]
    )
    files = [
        {"image": str(path), "label": str(path.parent.with_name("seg") / path.name)}
        for path in sorted((options.folder / "train" / "image").iterdir())
    ]
    if options.side == "CacheDataset":
        dataset = CacheDataset(files, steps, num_workers=options.workers, progress=False)
    else:
        dataset = PersistentDataset(files, steps, cache_dir=options.cache)
    loader = DataLoader(
        dataset,
        batch_size=1,
        shuffle=True,
        num_workers=options.workers,
        collate_fn=list_data_collate,
        persistent_workers=options.workers > 0,
    )
    for _ in range(options.passes):
        for batch in loader:
            assert (
                batch["image"].shape == (options.samples, 1, *options.roi)
                and batch["label"].shape[1] == 4
            )
            yield len(batch["image"])


def measure(options: argparse.Namespace) -> dict[str, float]:
    count = len(list((options.folder / "train" / "image").iterdir()))
    for module in (
        ("unet3d_tutorial.dataset",)
        if options.side == "ours"
        else ("monai.data", "monai.transforms")
    ):
        importlib.import_module(module)  # not to be timed
    batches = (ours if options.side == "ours" else theirs)(options)
    start, peak = time.perf_counter(), 0.0
    for _ in range(count):
        next(batches)
        peak = max(peak, held_mb())
    first, crops, start = time.perf_counter() - start, 0, time.perf_counter()
    for number in batches:
        crops += number
        peak = max(peak, held_mb())
    return {
        "first pass, s": first,
        "crops a second": crops / (time.perf_counter() - start),
        "held, MB": peak,
    }


def held_mb() -> float:
    """Anonymous and shared memory of this process and its children, without mapped files."""
    me, total = os.getpid(), 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            values = dict(
                line.split(":", 1)
                for line in (folder / "status").read_text(encoding="utf-8").splitlines()
            )
        except OSError:  # it ended
            continue
        if int(folder.name) == me or int(values["PPid"]) == me:
            total += sum(
                int(values.get(name, "0 kB").split()[0]) for name in ("RssAnon", "RssShmem")
            )
    return total / 1024


def waiting(steps: int) -> str:
    """Train the ``quick`` network for some steps: seconds that it computes, and that it waits for
    the next batch.
    """
    from mindspore import nn

    from unet3d_tutorial.config import Config
    from unet3d_tutorial.dataset import create_dataset
    from unet3d_tutorial.losses import DiceCELoss
    from unet3d_tutorial.runs.device import setup
    from unet3d_tutorial.training import build_network, make_train_step

    config = Config.preset("quick")
    setup(seed=1, device_target="CPU")
    network = build_network(config)
    network.set_train(True)
    step = make_train_step(network, DiceCELoss(), nn.Adam(network.trainable_params(), 1e-3))
    batches = create_dataset(config).create_tuple_iterator(num_epochs=1)
    waits, works = [], []
    for _ in range(steps):
        start = time.perf_counter()
        batch = next(batches)
        middle = time.perf_counter()
        float(step(*batch)[0].asnumpy())
        waits.append(middle - start)
        works.append(time.perf_counter() - middle)
    waited, worked = statistics.median(waits[2:]), statistics.median(works[2:])
    return (
        f"quick: a step computes {worked:.3f} s and waits {1000 * waited:.1f} ms for its batch "
        f"({waited / worked:.1%})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=4)
    parser.add_argument(
        "--passes", type=int, default=6, help="over the scans; the first is counted apart"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--roi", type=int, nargs=3, default=[96, 96, 96])
    parser.add_argument(
        "--steps",
        type=int,
        default=20,
        help="of training, to see whether it waits; 0 leaves it out",
    )
    parser.add_argument("--side", choices=SIDES, help="measure one side only, as JSON")
    parser.add_argument("--folder", type=Path, help="of the scans, for --side")
    parser.add_argument("--cache", type=Path, help="for --side")
    options = parser.parse_args()
    options.roi = tuple(options.roi)
    if options.side:
        print(json.dumps(measure(options)))
        return
    with TemporaryDirectory() as folder:
        compare(options, Path(folder))
    if options.steps:
        print(waiting(options.steps))


def compare(options: argparse.Namespace, folder: Path) -> None:
    make_scans(folder, options.scans)
    results = {side: [] for side in SIDES}
    for number in range(options.rounds):
        for side, rows in results.items():
            command = [
                sys.executable,
                __file__,
                "--side",
                side,
                "--folder",
                folder,
                "--cache",
                folder / f"{side}-{number}",
                "--passes",
                options.passes,
                "--workers",
                options.workers,
                "--samples",
                options.samples,
                "--roi",
                *options.roi,
            ]
            done = subprocess.run(
                list(map(str, command)), capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise SystemExit(f"{side}: {done.stderr}")
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    columns = list(results["ours"][0])
    print(
        f"{options.scans} scans of {SHAPE}, {options.samples} crops of {options.roi} each, "
        f"{options.workers} workers"
    )
    print(f"{'':18}" + "".join(f"{column:>16}" for column in columns))
    for side, rows in results.items():
        print(
            f"{side:18}"
            + "".join(
                f"{statistics.median(row[column] for row in rows):16.1f}" for column in columns
            )
        )


if __name__ == "__main__":
    main()
