"""Synthetic chest CTs with exact labels: data for the whole book without a download.

A phantom is painted like a picture, back to front: air, arms, body, abdomen, lungs, mediastinum, airway, bones, table, and
last the scanner's own marks (noise, streaks, a round field of view). Every organ is a *signed distance* in millimetres,
negative inside. A voxel that a surface cuts is blended by the share that lies inside, as a real scanner averages over it.

Coordinates are millimetres from the carina, where the trachea divides: x towards the patient's left, y towards the
back, z towards the head (LPS, the convention of LUNA16's files). The patients are breadth, not likeness: sizes, poses and
diseases are drawn wider than any hospital sees them, so that a network cannot get by with "air is lung".
"""

import json
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from tqdm import tqdm

from .volume import Volume

AIR, FAT, MUSCLE, WATER, BONE = -1000.0, -95.0, 50.0, 10.0, 350.0  # HU
LEFT_LUNG, RIGHT_LUNG, TRACHEA = 1, 2, 3
OESOPHAGUS = np.array([[8.0, 34.0, -140.0], [3.0, 24.0, -20.0], [4.0, 22.0, 60.0], [2.0, 22.0, 150.0]])  # mm, path
LUNA16_VALUES = {LEFT_LUNG: 3, RIGHT_LUNG: 4, TRACHEA: 5}


# --------------------------------------------------------------------------------------------------------- the patient
@dataclass
class Patient:
    """The measures of one synthetic patient, in mm unless said otherwise. ``draw`` picks them at random."""

    scale: float  #: overall size, 1 is an average adult
    cavity: np.ndarray  #: half width and half depth of the rib cage, inside
    squareness: float  #: exponent of the rib cage's superellipse, 2 is an ellipse
    wall: float  #: thickness of muscle and ribs
    fat: float  #: thickness of the fat under the skin
    apex: float  #: z of the lungs' tops
    domes: np.ndarray  #: z of the left and the right dome of the diaphragm
    dome_height: float  #: how far the diaphragm falls from dome to rib cage
    junction: float  #: thickness of the tissue where the lungs nearly touch in front of the heart
    lung_hu: float  #: mean HU of healthy lung
    blood_hu: float  #: HU of heart and vessels: 40 plain, up to 350 with contrast agent
    trachea_radius: float
    trachea_top: np.ndarray  #: x, y, z of the lower edge of the larynx, where the trachea's label ends
    arms: str  #: "up", "down" or "none" (outside the field of view)
    breasts: float  #: radius of the breasts, 0 for none
    prone: bool  #: lying on the front, so that gas rises towards the back
    tilt: np.ndarray  #: rotation about x, y and z in radians

    @classmethod
    def draw(cls, rng: np.random.Generator, family: str) -> "Patient":
        """Draw a patient. The ``"holdout"`` family has wider, squarer and more asymmetric chests than ``"train"``."""
        holdout = family == "holdout"
        scale = rng.uniform(0.8, 1.12)
        apex = rng.uniform(78, 115) * scale
        dome = -rng.uniform(75, 135) * scale
        lift = 55 * scale * (rng.random(2) < 0.06)  # a paralysed half of the diaphragm stands high
        return cls(
            scale=scale,
            cavity=np.array([rng.uniform(112, 142), rng.uniform(70, 105 if holdout else 98)]) * scale,
            squareness=rng.uniform(2.1, 3.2 if holdout else 2.8),
            wall=rng.uniform(14, 26),
            fat=rng.choice([rng.uniform(3, 14), rng.uniform(10, 28), rng.uniform(28, 55)]),
            apex=apex,
            domes=np.array([dome - rng.uniform(-5, 22), dome]) + lift,
            dome_height=rng.uniform(45, 100) * scale,
            junction=rng.uniform(0.5, 3) if rng.random() < 0.5 else rng.uniform(3, 14),
            lung_hu=rng.uniform(-890, -740) if rng.random() < 0.8 else rng.uniform(-740, -620),
            blood_hu=rng.uniform(30, 55) if rng.random() < 0.5 else rng.uniform(80, 380),
            trachea_radius=rng.uniform(6.0, 11.0) * scale**0.5,
            trachea_top=np.array([rng.normal(0, 5), -rng.uniform(5, 42), rng.uniform(85, 120)]) * scale,
            arms=rng.choice(["up", "down", "none"], p=[0.5, 0.3, 0.2]),
            breasts=rng.uniform(35, 85) if rng.random() < 0.45 else 0.0,
            prone=rng.random() < 0.06,
            tilt=rng.normal(0, 0.09 if holdout else 0.06, 3),
        )


# ---------------------------------------------------------------------------------------------------------- the canvas
class Canvas:
    """A grid of HU and labels that is painted with signed distances.

    ``x``, ``y``, ``z`` are ``(I, J, K)`` arrays of patient coordinates in mm, already tilted and smoothly warped, so that
    simple shapes come out bent like anatomy.
    """

    def __init__(self, shape: tuple[int, ...], spacing_mm: float, centre: np.ndarray):
        self.spacing_mm = spacing_mm
        axes = [(np.arange(n) - (n - 1) / 2) * spacing_mm + c for n, c in zip(shape, centre, strict=True)]
        self.origin = np.array([axis[0] for axis in axes])
        self.x, self.y, self.z = (np.array(a, np.float32) for a in np.meshgrid(*axes, indexing="ij"))
        self.hu = np.full(shape, AIR, np.float32)
        self.label = np.zeros(shape, np.uint8)

    def bend(self, rng: np.random.Generator, tilt: np.ndarray, warp_mm: float) -> None:
        """Tilt the patient and warp the coordinates smoothly by about ``warp_mm``."""
        grid = self.x, self.y, self.z
        (cx, cy, cz), (sx, sy, sz) = np.cos(tilt), np.sin(tilt)
        rotation = np.array([[cy * cz, -cy * sz, sy], [sz, cz, -sx], [-sy, sx, cx * cy]], np.float32)
        warped = []
        for row in rotation:
            noise = self.noise(rng, 70.0)
            warped.append(row[0] * grid[0] + row[1] * grid[1] + row[2] * grid[2] + np.float32(warp_mm) * noise)
        self.x, self.y, self.z = warped

    def noise(self, rng: np.random.Generator, scale_mm: float) -> np.ndarray:
        """Smooth random field of mean 0 and deviation 1 whose bumps are about ``scale_mm`` wide."""
        field = rng.standard_normal([int(np.ceil(n * self.spacing_mm / scale_mm)) + 3 for n in self.hu.shape])
        for axis, n in enumerate(self.hu.shape):
            position = np.arange(n) * self.spacing_mm / scale_mm + 1
            weight = np.exp(-((position[:, None] - np.arange(field.shape[axis])) ** 2) / 0.8)
            weight /= np.sqrt((weight**2).sum(axis=1, keepdims=True))
            field = np.moveaxis(np.tensordot(weight.astype(np.float32), field.astype(np.float32), (1, axis)), 0, axis)
        return field

    def share(self, distance: np.ndarray) -> np.ndarray:
        """Share of each voxel that lies inside a surface, from its signed distance in mm."""
        return np.clip(0.5 - distance / self.spacing_mm, 0.0, 1.0)

    def paint(self, distance: np.ndarray, hu: float | np.ndarray, label: int | None = None, box=...) -> None:
        """Blend ``hu`` into the inside; set ``label`` where at least half of the voxel is inside (None keeps it)."""
        share = self.share(distance)
        self.hu[box] += share * (hu - self.hu[box])
        if label is not None:
            self.label[box][share >= 0.5] = label

    def box(self, low: np.ndarray, high: np.ndarray, margin: float) -> tuple[slice, ...]:
        """Index box that holds the part of the warped grid between two corners, given in mm."""
        start = np.floor((np.minimum(low, high) - margin - self.origin) / self.spacing_mm).astype(int)
        stop = np.ceil((np.maximum(low, high) + margin - self.origin) / self.spacing_mm).astype(int) + 1
        return tuple(slice(max(a, 0), max(b, 0)) for a, b in zip(start, stop, strict=True))

    def ellipsoid(self, centre, radii, hu, label: int | None = None) -> None:
        """Paint an ellipsoid."""
        centre, radii = np.asarray(centre, np.float32), np.asarray(radii, np.float32)
        box = self.box(centre - radii, centre + radii, 30)
        if self.hu[box].size:
            self.paint(ellipsoid(self.x[box], self.y[box], self.z[box], centre, radii), hu, label, box)

    def tube(self, points, radius, hu: float, label: int | None = None, *, inside: np.ndarray | None = None) -> None:
        """Paint a tube through ``points``; ``radius`` is one number or one a point. ``inside`` limits it to a mask.

        A tube thinner than a voxel gets the brightness that its cross-section has in the voxel.
        """
        points = np.asarray(points, np.float32)
        radii = np.broadcast_to(np.asarray(radius, np.float32), len(points))
        for a, b, r in zip(points[:-1], points[1:], (radii[:-1] + radii[1:]) / 2, strict=True):
            box = self.box(a, b, r + 25)
            if not self.hu[box].size:
                continue
            distance = capsule(self.x[box], self.y[box], self.z[box], a, b) - max(r, 0.5 * self.spacing_mm)
            weight = self.share(distance) * min(1.0, (2 * r / self.spacing_mm) ** 2)
            if inside is not None:
                weight = weight * inside[box]
            self.hu[box] += weight * (hu - self.hu[box])
            if label is not None:
                self.label[box][weight >= 0.5] = label


def ellipsoid(x, y, z, centre, radii) -> np.ndarray:
    """Signed distance in mm to an ellipsoid, near its surface (first order)."""
    (cx, cy, cz), (rx, ry, rz) = centre, radii
    r = np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2)
    return (r - 1) * min(rx, ry, rz)


def capsule(x, y, z, a, b) -> np.ndarray:
    """Distance in mm to the line from ``a`` to ``b``."""
    d = b - a
    t = np.clip(((x - a[0]) * d[0] + (y - a[1]) * d[1] + (z - a[2]) * d[2]) / max(float(d @ d), 1e-6), 0, 1)
    return np.sqrt((x - a[0] - t * d[0]) ** 2 + (y - a[1] - t * d[1]) ** 2 + (z - a[2] - t * d[2]) ** 2)


def superellipse(x, y, rx, ry, n: float) -> np.ndarray:
    """Signed distance in mm, to first order, to ``|x/rx|^n + |y/ry|^n = 1``; the radii may vary from voxel to voxel."""
    r = (np.abs(x / rx) ** n + np.abs(y / ry) ** n) ** (1 / n)
    return (r - 1) * np.minimum(rx, ry)


def ramp(value, start: float, stop: float):
    """0 below ``start``, 1 above ``stop``, smooth between."""
    t = np.clip((value - start) / (stop - start), 0, 1)
    return t * t * (3 - 2 * t)


# ---------------------------------------------------------------------------------------------------------- the organs
def body(c: Canvas, p: Patient, rng: np.random.Generator) -> None:
    """Arms, trunk, neck and head, breasts: skin, fat and muscle."""
    half = p.cavity + p.wall
    top = p.apex + rng.uniform(-5, 25)  # where the shoulders begin to narrow
    neck = ramp(c.z, top, top + rng.uniform(25, 75))
    drop = ramp(c.z, p.apex - 90, top) * (rng.uniform(25, 60) if p.arms == "down" else rng.uniform(0, 35))
    neck_radius = rng.uniform(48, 70)
    head = 30 * ramp(c.z, top + 120, top + 160)
    muscle = superellipse(c.x, c.y, (half[0] + drop) * (1 - neck) + (neck_radius + head) * neck,
                          half[1] * (1 - 0.25 * ramp(c.z, 30, top)) * (1 - neck) + (neck_radius + head) * neck, 2.4)
    if p.arms != "none":
        paint_arms(c, p, rng, half[0] + p.fat, top)
    fat = p.fat * (1 - 0.7 * neck) * (1 + 0.3 * c.noise(rng, 90))
    if rng.random() < 0.35:  # a blanket, with air under it
        c.paint(np.abs(muscle - fat - rng.uniform(4, 30) - 6 * c.noise(rng, 60)) - rng.uniform(0.5, 1.5), -300.0)
    c.paint(muscle - fat - 2.0, 20.0)  # skin
    c.paint(muscle - fat, FAT)
    for side in (-1, 1):
        if p.breasts:
            centre = side * p.cavity[0] * rng.uniform(0.5, 0.65), -half[1] * 0.8 - p.fat, rng.uniform(-70, -20)
            radii = p.breasts * rng.uniform(0.7, 1.1, 3)
            c.ellipsoid(centre, radii, FAT)
            c.ellipsoid(centre, radii * rng.uniform(0.3, 0.7), rng.uniform(-60, 40))
    c.paint(muscle, MUSCLE + 12 * c.noise(rng, 12))
    streaks = np.abs(c.noise(rng, 18)) - rng.uniform(0.05, 0.25)  # fat between the muscles
    c.paint(np.maximum(muscle + 3, streaks * 12), FAT)


def paint_arms(c: Canvas, p: Patient, rng: np.random.Generator, half_width: float, top: float) -> None:
    """Two arms with a bone each, beside the head or beside the trunk, with air between."""
    for side in (-1, 1):
        radius = rng.uniform(28, 50) + 0.3 * p.fat
        shoulder = np.array([side * half_width * rng.uniform(0.75, 0.95), rng.uniform(-10, 25), top - 30])
        reach = [side * rng.uniform(0.5, 1.0) * half_width, rng.uniform(-50, 30), top + 220]
        if p.arms == "down":
            shoulder[0] = side * (half_width + radius * rng.uniform(0.3, 0.9))
            reach = [side * (half_width + radius * rng.uniform(0.9, 1.6)), rng.uniform(-20, 40), -400]
        for thickness, hu in ((radius, FAT), (radius * 0.8, MUSCLE), (rng.uniform(10, 14), 500.0), (6.0, 50.0)):
            c.tube([shoulder, reach], thickness, hu)


def cavity_distance(c: Canvas, p: Patient) -> np.ndarray:
    """Signed distance to the inside of the rib cage: two cones that round off at the lungs' tops."""
    rise = np.clip((c.z + 40) / (p.apex + 40), 0, 1)
    width = np.sqrt(np.maximum(1 - rise**3, 1e-4))
    centre = p.cavity[0] * 0.3 * ramp(c.z, 10, p.apex)
    lateral = np.abs(c.x) - centre
    rx = np.where(lateral > 0, (p.cavity[0] - centre) * width, np.maximum((p.cavity[0] - centre) * width * 0.6, 12))
    lateral = np.where((lateral < 0) & (centre < 5), 0, lateral)
    waist = 1 - 0.15 * ramp(-c.z, 120, 260)
    return superellipse(lateral, c.y - 8 * rise, rx * waist, np.maximum(p.cavity[1] * width, 2), p.squareness)


def diaphragm(c: Canvas, p: Patient) -> np.ndarray:
    """Height z of the diaphragm under each voxel."""
    side = np.where(c.x > 0, p.domes[0], p.domes[1])
    side = side + (p.domes[1] - p.domes[0]) * np.where(c.x > 0, 0.5, -0.5) * np.exp(-np.abs(c.x) / 20)
    away = ((np.abs(c.x) - 0.45 * p.cavity[0]) / (0.62 * p.cavity[0])) ** 2 + ((c.y + 15) / p.cavity[1]) ** 2
    return side - p.dome_height * np.minimum(away, 2.5) * np.where(c.y > 0, 1.15, 0.75)


def abdomen(c: Canvas, p: Patient, rng: np.random.Generator, inside: np.ndarray, dome: np.ndarray) -> None:
    """Liver, spleen and fat under the diaphragm, and the gas that looks like lung: stomach, colon, small bowel."""
    below = np.maximum(inside, c.z - dome)
    c.paint(below, FAT)
    liver = c.x + 10 * c.noise(rng, 60) - rng.uniform(-10, 60)
    c.paint(np.maximum.reduce([below + 3, liver, p.domes[1] - rng.uniform(90, 170) - c.z]),
            rng.uniform(40, 75) + 0.2 * p.blood_hu)
    reach = p.cavity * [0.8, 0.75]
    c.ellipsoid([0.75 * reach[0], 0.6 * reach[1], p.domes[0] - 50], rng.uniform(25, 50, 3), 50 + 0.2 * p.blood_hu)
    soft = np.maximum(below + 4, -np.abs(c.noise(rng, 28)) * 20 + rng.uniform(5, 14))
    c.paint(np.maximum(soft, p.domes.min() - 30 - c.z - 60), 30.0)
    up = 1 if p.prone else -1  # the side to which gas rises
    if rng.random() < 0.75:  # stomach: contents below, gas above a level
        radii = rng.uniform(20, 58, 3)
        centre = np.array([rng.uniform(25, 75), rng.uniform(-40, 20), p.domes[0] - radii[2] - rng.uniform(2, 18)])
        distance = ellipsoid(c.x, c.y, c.z, centre, radii)
        distance = np.maximum(distance, below + rng.uniform(2, 5))
        c.paint(distance - 4, MUSCLE)
        c.paint(distance, rng.uniform(-10, 60))
        level = rng.uniform(-1, 0.9) * radii[1]
        c.paint(np.maximum(distance, -up * (c.y - centre[1]) - level), AIR)
    for _ in range(rng.integers(0, 45)):  # colon and small bowel, often right under the diaphragm
        radii = rng.uniform(6, 26) * rng.uniform(0.7, 1.3, 3)
        spot = rng.uniform([-0.6, -1, 0], [1, 0.6, 0]) * [*reach, 0] + [0, 0, p.domes.min() - rng.exponential(60) - 15]
        box = c.box(spot - radii, spot + radii, 30)
        if c.hu[box].size:
            distance = np.maximum(ellipsoid(c.x[box], c.y[box], c.z[box], spot, radii), below[box] + 4)
            c.paint(distance - 3, MUSCLE, box=box)
            c.paint(distance, AIR if rng.random() < 0.7 else rng.uniform(-600, 60), box=box)
    for _ in range(rng.integers(0, 4)):  # a length of colon full of gas, much like a trachea
        path = rng.uniform([-0.8, -0.9, -150], [0.8, 0.3, -10], (3, 3)) * [*reach, 1] + [0, 0, p.domes.min()]
        radius = rng.uniform(6, 22)
        c.tube(path, radius + 3, MUSCLE, inside=below < -4)
        c.tube(path, radius, rng.uniform(-1000, -900), inside=below < -7)


def mediastinum_distance(c: Canvas, p: Patient, rng: np.random.Generator, airways: tuple[np.ndarray, ...]) -> np.ndarray:
    """Signed distance to what stands between the lungs: septum, heart, great vessels, spine, airway and hila."""
    s = p.scale
    front = ramp(-c.y, 5, 45) * ramp(c.z, -70, -20) * ramp(-c.z, -75, -40)  # lungs nearly touch behind the sternum
    half = (rng.uniform(15, 24) + 12 * ramp(c.z, 40, p.apex)) * s * (1 - front) + p.junction / 2 * front
    septum = np.abs(c.x - rng.uniform(-5, 5) - rng.uniform(-14, 14) * front) - half
    root = np.array([rng.uniform(-4, 4), 4, -14]) * s  # the main bronchi run in fat and vessels until they enter the lungs
    parts = [septum, ellipsoid(c.x, c.y, c.z, root, rng.uniform([28, 22, 22], [46, 36, 40]) * s)]
    parts = [np.maximum(np.minimum(*parts), -recesses(c, p, rng))]
    heart_radii = np.array([rng.uniform(46, 72), rng.uniform(36, 58), rng.uniform(45, 62)]) * s
    heart = np.array([rng.uniform(14, 30), -rng.uniform(22, 40), -rng.uniform(60, 80)]) * s
    parts.append(ellipsoid(c.x, c.y, c.z, heart, heart_radii))
    c.oesophagus = (OESOPHAGUS + [rng.uniform(-4, 12), rng.uniform(-3, 4), 0]) * s  # often left of the trachea
    spine_y = p.cavity[1] * rng.uniform(0.42, 0.72)
    parts.append(np.hypot(c.x, (c.y - spine_y)) - rng.uniform(18, 25) * s)
    parts.append(np.maximum(np.hypot(c.x - 22 * s, c.y - 35 * s) - rng.uniform(11, 18), c.z - 40 * s))
    for path, radius in (
        (np.array([[-12, -25, 30], [24, 30, 32]]) * s, rng.uniform(13, 19)),  # arch of the aorta
        *((path, p.trachea_radius + rng.uniform(0.3, 3)) for path in airways),
        (c.oesophagus, rng.uniform(7, 11)),
    ):
        for a, b in zip(path[:-1], path[1:], strict=True):
            parts.append(capsule(c.x, c.y, c.z, a, b) - radius)
    for side in (-1, 1):
        parts.append(ellipsoid(c.x, c.y, c.z, np.array([side * rng.uniform(30, 44), 4, -24]) * s,
                               rng.uniform(8, 22, 3) * s))
    c.spine_y, c.heart, c.heart_radii = spine_y, heart, heart_radii
    return np.minimum.reduce(parts)


def recesses(c: Canvas, p: Patient, rng: np.random.Generator) -> np.ndarray:
    """Signed distance to the pockets of lung that reach the middle plane behind and beside the airway.

    The azygo-oesophageal recess below the carina and the retrotracheal one above it, on the right; the one over the arch
    of the aorta, on the left; and the right lung where it touches the trachea. Without them a network learns that all air
    near the middle is trachea.
    """
    found = [np.full_like(c.x, 1e3)]
    for chance, side, y, z, reach in (
        (0.9, -1, (14, 36), (-80, -30), (20, 44)),
        (0.85, -1, (12, 40), (25, 85), (18, 44)),
        (0.8, 1, (12, 40), (40, 90), (18, 42)),
        (0.35, -1, (-20, 12), (15, 80), (12, 26)),
        (0.6, 1, (14, 40), (-110, -45), (12, 36)),
    ):
        if rng.random() < chance:
            lean = p.trachea_top[:2] / p.trachea_top[2] if z[0] > 0 else np.zeros(2)
            height = rng.uniform(*z)
            centre = np.array([side * 30 + lean[0] * height, rng.uniform(*y) + lean[1] * height, height]) * p.scale
            radii = np.array([rng.uniform(*reach), rng.uniform(8, 24), rng.uniform(20, 50)]) * p.scale
            found.append(ellipsoid(c.x, c.y, c.z, centre, radii))
    return np.minimum.reduce(found)


def lungs(c: Canvas, p: Patient, rng: np.random.Generator, lung: np.ndarray) -> None:
    """Parenchyma with its gravity gradient and texture, vessels and bronchi; label 1 left, 2 right."""
    texture = rng.uniform(5, 25) * c.noise(rng, 10) + rng.uniform(5, 35) * c.noise(rng, 45)
    gradient = (-1 if p.prone else 1) * rng.uniform(0, 0.7) * c.y
    c.paint(lung, np.clip(p.lung_hu + gradient + texture, -990, -400))
    inside = lung < -0.5
    c.label[(lung < 0) & (c.x > 0)] = LEFT_LUNG
    c.label[(lung < 0) & (c.x <= 0)] = RIGHT_LUNG
    for side in (-1, 1):
        for _ in range(rng.integers(6, 14)):
            grow_vessel(c, p, rng, np.array([side * 30.0, 0, -20]) * p.scale, side, inside)


def grow_vessel(c: Canvas, p: Patient, rng: np.random.Generator, root: np.ndarray, side: int, inside) -> None:
    """One vessel that leaves the hilum and forks a few times, thinner at each fork."""
    aim = rng.normal(0, 1, 3) * [0.5, 1, 1.2] + [side * 0.8, 0, 0]
    tips = [(root, aim / np.linalg.norm(aim), rng.uniform(2.5, 6.0))]
    for _ in range(4):
        grown = []
        for start, heading, radius in tips:
            end = start + heading * rng.uniform(14, 30) * p.scale
            c.tube([start, end], radius, p.blood_hu, inside=inside)
            for _ in range(2):
                turned = heading + rng.normal(0, 0.45, 3)
                grown.append((end, turned / np.linalg.norm(turned), radius * 0.72))
        tips = grown


def disease(c: Canvas, p: Patient, rng: np.random.Generator, lung: np.ndarray) -> None:
    """Consolidation, ground glass, emphysema, nodules and masses stay lung; an effusion is not lung."""
    inside = c.share(lung)

    def fill(share: np.ndarray, hu) -> None:
        c.hu += inside * np.clip(share, 0, 1) * (hu - c.hu)

    if rng.random() < 0.3:  # consolidation or ground glass, patchy
        patch = c.noise(rng, rng.uniform(15, 60)) - rng.uniform(0.6, 1.8)
        fill(patch * rng.uniform(1, 4), rng.uniform(-650, 60))
    if rng.random() < 0.15:  # a whole region, as in lobar pneumonia or collapse
        centre = rng.normal(0, 1, 3) * [70, 40, 60] + [0, 20, -40]
        fill(-ellipsoid(c.x, c.y, c.z, centre, rng.uniform(25, 65, 3)) / 12, rng.uniform(-150, 60))
    if rng.random() < 0.2:  # emphysema: black holes
        fill((c.noise(rng, rng.uniform(10, 30)) - rng.uniform(0.3, 1.2)) * 3, rng.uniform(-980, -920))
    if rng.random() < 0.2:  # fibrosis: a net under the pleura
        fill((np.abs(c.noise(rng, 9)) < 0.35) * np.exp(lung / rng.uniform(10, 25)), rng.uniform(-400, 0))
    for _ in range(rng.poisson(1.0)):  # nodules and masses
        centre = rng.normal(0, 1, 3) * [80, 45, 70]
        fill(-ellipsoid(c.x, c.y, c.z, centre, rng.choice([5, 10, 18, 32]) * rng.uniform(0.7, 1.4, 3)) / 4,
             rng.uniform(-50, 80))
    if rng.random() < 0.2:  # effusion: fluid that settles on the lower side, on one side or both
        low = -c.y if p.prone else c.y
        level = rng.uniform(0.1, 0.75) * p.cavity[1] - 0.35 * np.maximum(-c.z - rng.uniform(0, 120), 0)
        side = c.x * rng.choice([-1, 1]) > 0 if rng.random() < 0.7 else np.ones_like(c.x, bool)
        fluid = np.maximum(np.where(side, level - low, 1e3), lung)
        atelectasis = np.maximum(fluid - rng.uniform(2, 14), lung)
        c.paint(atelectasis, rng.uniform(20, 70))
        c.paint(fluid, rng.uniform(0, 30), label=0)


def mediastinum(c: Canvas, p: Patient, rng: np.random.Generator) -> None:
    """Heart with its fat, aorta, vena cava, pulmonary trunk, oesophagus (at times with gas)."""
    s, blood = p.scale, p.blood_hu
    c.ellipsoid(c.heart, c.heart_radii - rng.uniform(3, 10), 0.5 * blood + 25)
    c.ellipsoid(c.heart + [8, 0, 5], (c.heart_radii - 8) * rng.uniform(0.4, 0.7, 3), blood)
    aorta = rng.uniform(9, 16)
    c.tube(np.array([[5, -25, -40], [-12, -28, 25], [2, -8, 38], [22, 22, 34], [23, 35, 5], [20, 40, -260]]) * s,
           aorta, blood)
    c.tube(np.array([[-22, -22, -40], [-22, -18, 60]]) * s, rng.uniform(6, 11), blood * rng.uniform(0.7, 1.6))
    c.tube(np.array([[12, -25, -30], [12, -15, -8], [-25, 0, -14]]) * s, rng.uniform(7, 13), blood)
    c.tube(np.array([[14, -14, -6], [34, 8, -4], [46, 14, -20]]) * s, rng.uniform(6, 11), blood)
    c.tube(np.array([[-25, 0, -14], [-44, 6, -26]]) * s, rng.uniform(6, 10), blood)
    c.ellipsoid(np.array([4, 14, -rng.uniform(44, 58)]) * s, rng.uniform([28, 14, 14], [42, 24, 24]) * s, blood)
    for _ in range(rng.integers(0, 8)):  # lymph nodes around the bronchi
        c.ellipsoid(rng.normal(0, 1, 3) * [22, 12, 20] + [0, 0, -8], rng.uniform(3, 11, 3), rng.uniform(10, 70))
    inflow = rng.choice([-1, 0, 1])  # the arm that the contrast agent comes through, if any
    for side in (-1, 1):  # vessels to neck and arms
        dense = rng.uniform(400, 2500) if side == inflow else blood
        c.tube(np.array([[side * 8, -20, 38], [side * 24, -12, 75], [side * 30, -5, 160]]) * s, rng.uniform(4, 8), blood)
        over = p.apex / s + rng.uniform(8, 15)  # the vessels of an arm run over the lung's top, not through it
        c.tube(np.array([[-20, -22, 40], [side * 12, -26, 62], [side * 18, -24, over], [side * 80, -15, over]]) * s,
               rng.uniform(4, 8), dense)
    if inflow:
        beam_hardening(c, rng, np.array([inflow * rng.uniform(-25, 60), -22, rng.uniform(30, 85)]) * s)
    path = c.oesophagus
    c.tube(path, rng.uniform(5, 9), 40.0)
    if rng.random() < 0.35:
        first = rng.integers(0, 3)
        c.tube(path[first:first + 2], rng.uniform(1.5, 7), AIR)


def beam_hardening(c: Canvas, rng: np.random.Generator, centre: np.ndarray) -> None:
    """Dark and bright rays in the axial plane around a vessel full of contrast agent."""
    x, y = c.x - centre[0], c.y - centre[1]
    rays = np.cos(rng.integers(2, 7) * np.arctan2(y, x) + rng.uniform(0, 2 * np.pi))
    fade = np.exp(-np.hypot(x, y) / rng.uniform(15, 40) - ((c.z - centre[2]) / rng.uniform(10, 30)) ** 2)
    c.hu += rng.uniform(80, 400) * (rays - 0.3) * fade * (c.hu > -980)


def airway_paths(p: Patient, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Middle lines of the trachea and of the right and the left main bronchus, in mm, ``(points, 3)`` each."""
    s = p.scale
    trachea = np.array([[0, 0, 2], p.trachea_top * [0.5, rng.uniform(0.3, 0.55), 0.5] - [2, 0, 0], p.trachea_top])
    right = np.array([[0, 0, 4], [-rng.uniform(14, 21), 3, -rng.uniform(8, 14)],
                      [-rng.uniform(29, 38), 6, -rng.uniform(17, 34)]]) * s
    left = np.array([[0, 0, 4], [rng.uniform(17, 24), 5, -rng.uniform(7, 13)],
                     [rng.uniform(39, 50), 12, -rng.uniform(15, 32)]]) * s
    return trachea, right, left


def airway(c: Canvas, p: Patient, rng: np.random.Generator, paths: tuple[np.ndarray, ...]) -> None:
    """Larynx, trachea and bronchi, with their walls.

    The label runs from below the larynx into the main bronchi, to about 20 mm below the carina, and includes the wall.
    """
    s, r = p.scale, p.trachea_radius
    trachea, right, left = paths
    above = np.array([trachea[-1], trachea[-1] + [0, -4, 30], trachea[-1] + [0, 5, 110]])
    lobes = [(np.array([right[-1], right[-1] + [-6, 5, -18], right[-1] + [-14, 12, -45]]), rng.uniform(0.5, 0.85)),
             (np.array([right[1], right[1] + [-28, 0, 18]]), rng.uniform(0.4, 0.7)),
             (np.array([left[-1], left[-1] + [6, 8, -15], left[-1] + [14, 16, -40]]), rng.uniform(0.5, 0.8)),
             (np.array([left[-1], left[-1] + [22, -12, 12]]), rng.uniform(0.4, 0.7))]
    label_end = -rng.uniform(16, 24) * s
    wall, air = rng.uniform(0.6, 2.2), rng.uniform(-1000, -955)
    labelled = [(right, r * np.array([0.9, 0.8, 0.65])), (left, r * np.array([0.9, 0.75, 0.6])), (trachea, r * np.ones(3))]
    before = c.label.copy()
    for path, radii in labelled:
        c.tube(path, radii + wall, 30.0, TRACHEA)
    outside = (c.label == TRACHEA) & ((c.z < label_end) | (c.z > p.trachea_top[2]))
    c.label[outside] = before[outside]
    c.tube(above, r * 0.9 + wall, 30.0)
    for path, width in lobes:  # not part of the label, though as wide as the main bronchi at first
        radii = r * width * np.linspace(1, 0.6, len(path))
        c.tube(path, radii + wall, 0.0)
        c.tube(path, radii, air)
    c.tube(above, [r, r * rng.uniform(0.3, 0.8), r * rng.uniform(0.5, 1.8)], air)
    for _ in range(rng.integers(0, 4)):  # mouth and nose, where the scan reaches that far
        c.ellipsoid(above[-1] + rng.normal(0, 1, 3) * [10, 20, 20] + [0, -20, 15], rng.uniform(6, 22, 3), air)
    for path, radii in labelled:
        c.tube(path, radii, air)


def bones(c: Canvas, p: Patient, rng: np.random.Generator, inside: np.ndarray) -> None:
    """Ribs as tilted stripes in the wall, spine with discs, sternum, collar bones, shoulder blades."""
    period = rng.uniform(24, 34) * p.scale
    stripes = np.cos(2 * np.pi * (c.z + rng.uniform(0.3, 0.7) * -c.y) / period) - rng.uniform(0.0, 0.5)
    ribs = np.maximum(np.abs(inside - rng.uniform(5, 8)) - rng.uniform(3, 5), -stripes * 6)
    c.paint(np.maximum(ribs, c.z - p.apex - 5), rng.uniform(200, 500))
    spine = np.hypot(c.x / 1.15, c.y - c.spine_y) - rng.uniform(14, 19) * p.scale
    c.paint(spine, rng.uniform(120, 260))
    c.paint(np.maximum(spine, np.cos(2 * np.pi * c.z / (26 * p.scale)) * -8 + 6), 90.0)
    arch = np.hypot(c.x, c.y - c.spine_y - 30 * p.scale) - 14
    c.paint(arch, rng.uniform(150, 350))
    c.paint(arch + 6, 20.0)
    front = -p.cavity[1]
    c.tube([[0, front - 4, -70 * p.scale], [0, front * 0.8 - 6, 35 * p.scale]], 8, rng.uniform(120, 300))
    for side in (-1, 1):
        shoulder = np.array([side * p.cavity[0] * 1.05, -5, p.apex])
        c.tube([[side * 18, front * 0.75, 40 * p.scale], shoulder], 6, rng.uniform(300, 600))
        c.tube([shoulder + [side * 10, 30, 0], [side * p.cavity[0] * 0.75, p.cavity[1] + 12, -30]], 6, BONE)


def table(c: Canvas, p: Patient, rng: np.random.Generator, back: float) -> None:
    """A couch under the patient: one or two thin shells with air or foam between."""
    lower = -1 if p.prone else 1
    curve = rng.choice([0, rng.uniform(0.0003, 0.0015)])
    height = lower * (c.y + lower * curve * c.x**2) - back - rng.uniform(0, 25)
    half_width, thickness = rng.uniform(180, 260), rng.uniform(25, 70)
    slab = np.maximum(np.maximum(-height, height - thickness), np.abs(c.x) - half_width)
    outside = c.hu < -300
    filled = np.where(c.share(slab + rng.uniform(1, 4)) > 0.5, rng.uniform(-1000, -860), rng.uniform(-400, 150))
    c.hu += np.where(outside, c.share(slab), 0) * (filled - c.hu)


def scanner(c: Canvas, p: Patient, rng: np.random.Generator, grid: tuple[np.ndarray, ...]) -> None:
    """What the machine adds: reconstruction kernel, noise, streaks through the shoulders, a round field of view."""
    blur = np.array([1, 1, rng.uniform(1, 1.8)]) * rng.uniform(0.3, 0.75)  # voxels; slices are often thick
    smooth = ndimage.gaussian_filter(c.hu, blur, truncate=3)
    c.hu = smooth if rng.random() < 0.8 else c.hu + rng.uniform(0, 0.4) * (c.hu - smooth)
    if rng.random() < 0.3:
        streak = rng.standard_normal((1, *c.hu.shape[1:])).astype(np.float32) * ramp(c.z, p.apex - 60, p.apex)
        c.hu += rng.uniform(20, 120) * streak * (c.hu > -900)
    c.hu += (rng.gamma(2.0, 9.0) * rng.standard_normal(c.hu.shape, dtype=np.float32))
    if rng.random() < 0.1:
        c.hu += rng.normal(0, 20)
    x, y = grid
    radius = (x.max() - x.min()) / 2 + c.spacing_mm / 2
    outside = np.hypot(x - x.mean(), y - y.mean()) > radius * rng.uniform(0.97, 1.0)
    padding = rng.choice([None, -1024, -2048, -3024], p=[0.3, 0.3, 0.2, 0.2])
    np.clip(c.hu, -1024, 3071, out=c.hu)
    if padding is not None:
        c.hu[outside] = padding


# ---------------------------------------------------------------------------------------------------------- the public
def generate(seed: int | list[int], *, spacing_mm: float = 4.0, family: str = "train") -> tuple[Volume, Volume]:
    """Make one synthetic chest CT.

    Args:
        seed: the same seed gives the same phantom, to the bit.
        spacing_mm: distance between voxels, equal along all axes.
        family: ``"train"``, or ``"holdout"`` for patients from other ranges, to test on.

    Returns:
        Image (int16, HU) and label (uint8: 0 background, 1 left lung, 2 right lung, 3 trachea), both ``(I, J, K)`` with
        axes left, posterior, superior (LPS). The field of view differs from patient to patient.
    """
    if family not in ("train", "holdout"):
        raise ValueError(f"family: expected 'train' or 'holdout', found {family!r}")
    if not 1.0 <= spacing_mm <= 8.0:
        raise ValueError(f"spacing_mm: expected 1 to 8 mm, found {spacing_mm}")
    rng = np.random.default_rng([*np.atleast_1d(seed), ["train", "holdout"].index(family)])
    p = Patient.draw(rng, family)
    c = Canvas(*field_of_view(p, rng, spacing_mm))
    grid = c.x, c.y
    c.bend(rng, p.tilt, warp_mm=rng.uniform(2, 7) * (1.3 if family == "holdout" else 1))
    body(c, p, rng)
    cavity = cavity_distance(c, p)
    inside = cavity + rng.uniform(0, 2.5) * c.noise(rng, 22)
    dome = diaphragm(c, p)
    abdomen(c, p, rng, np.maximum(cavity, c.z - p.apex), dome)
    c.paint(np.maximum(inside, dome - c.z), FAT + 20)
    airways = airway_paths(p, rng)
    lung = np.maximum.reduce([inside, dome - c.z, -mediastinum_distance(c, p, rng, airways), c.z - p.apex])
    lungs(c, p, rng, lung)
    disease(c, p, rng, lung)
    mediastinum(c, p, rng)
    airway(c, p, rng, airways)
    bones(c, p, rng, inside)
    table(c, p, rng, p.cavity[1] + p.wall + p.fat)
    scanner(c, p, rng, grid)
    affine = np.diag([-spacing_mm, -spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = c.origin * [-1, -1, 1]
    return Volume(np.rint(c.hu).astype(np.int16), affine), Volume(c.label, affine)


def field_of_view(p: Patient, rng: np.random.Generator, spacing_mm: float) -> tuple[tuple[int, ...], float, np.ndarray]:
    """Grid shape, spacing and centre: from tight around the lungs, skin cut off, to 500 mm wide; chest to abdomen."""
    body_width = 2 * (p.cavity[0] + p.wall + p.fat)
    width = np.clip(rng.uniform(0.82, 1.35) * body_width, 240, 500)
    bottom = p.domes.min() - rng.uniform(40, 190)
    top = p.apex + rng.uniform(-8, 40) if rng.random() < 0.75 else p.apex + rng.uniform(40, 180)
    shape = [int(round(extent / spacing_mm)) for extent in (width, width, top - bottom)]
    centre = np.array([*rng.normal(0, 0.03 * width, 2), (top + bottom) / 2])
    return tuple(shape), spacing_mm, centre


def write_luna16(folder: str | Path, *, n: int = 190, seed: int = 0, spacing_mm: float = 4.0) -> Path:
    """Write ``n`` phantoms in LUNA16's layout: ``subset0..9/*.mhd`` with ``.raw`` and ``seg-lungs-LUNA16/*.mhd``.

    Label files hold 3 (left lung), 4 (right lung), 5 (trachea). The last ten phantoms, all in subset9, are of the
    ``"holdout"`` family. As many processes as cores share the work; phantoms that are there already are kept.
    """
    if n < 20:
        raise ValueError(f"n: expected at least 20 phantoms, ten to train on and ten to validate, found {n}")
    folder = Path(folder)
    recipe = {"n": n, "seed": seed, "spacing_mm": spacing_mm}
    record = folder / "phantoms.json"
    if record.exists() and json.loads(record.read_text()) != recipe:
        raise ValueError(f"{folder} holds phantoms of another recipe, {record.read_text()}; delete it or choose another")
    for name in [f"subset{i}" for i in range(10)] + ["seg-lungs-LUNA16"]:
        (folder / name).mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(recipe))
    jobs = [number for number in range(n) if not _scan_path(folder, number, n).exists()]
    work = partial(_write_phantom, folder, n, seed, spacing_mm)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the processes share the cores; inherited when they start
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for _ in tqdm(pool.map(work, jobs), total=len(jobs), desc="phantoms", unit="scan"):
            pass
    return folder


def _scan_path(folder: Path, number: int, n: int) -> Path:
    return folder / f"subset{number * 10 // n}" / f"phantom-{number:04d}.mhd"


def _write_phantom(folder: Path, n: int, seed: int, spacing_mm: float, number: int) -> None:
    """Make one phantom and write its label, then its image, each under a temporary name first."""
    image, label = generate([seed, number], spacing_mm=spacing_mm, family="holdout" if number >= n - 10 else "train")
    values = np.zeros(4, np.uint8)
    values[list(LUNA16_VALUES)] = list(LUNA16_VALUES.values())
    path = _scan_path(folder, number, n)
    _write_mhd(Volume(values[label.array], label.affine), folder / "seg-lungs-LUNA16" / path.name)
    _write_mhd(image, path)


def _write_mhd(volume: Volume, path: Path) -> None:
    """Write ``path`` (.mhd) and its ``.raw``; the header, by which a scan counts as there, comes last."""
    image = sitk.GetImageFromArray(volume.array.transpose(2, 1, 0))
    image.SetSpacing(volume.spacing_mm)
    image.SetOrigin([float(v) for v in volume.affine[:3, 3] * [-1, -1, 1]])
    with tempfile.TemporaryDirectory(dir=path.parent) as part:
        sitk.WriteImage(image, str(Path(part) / path.name))
        (Path(part) / path.with_suffix(".raw").name).replace(path.with_suffix(".raw"))
        (Path(part) / path.name).replace(path)
