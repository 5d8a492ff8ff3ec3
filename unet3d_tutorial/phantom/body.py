"""What surrounds a phantom's lungs: arms, trunk and skin, rib cage, diaphragm, abdomen, bones."""

import numpy as np

from .canvas import AIR, BACKGROUND, Canvas, ellipsoid, ramp, superellipse
from .patient import Patient

# HU
FAT = -95.0
MUSCLE = 50.0
BONE = 350.0


def body(c: Canvas, p: Patient, rng: np.random.Generator) -> None:
    """Arms, trunk, neck and head, breasts: skin, fat and muscle."""
    half = p.cavity + p.wall
    top = p.apex + rng.uniform(-5, 25)  # where the shoulders begin to narrow
    neck = ramp(c.z, top, top + rng.uniform(25, 75))
    drop = ramp(c.z, p.apex - 90, top) * (
        rng.uniform(25, 60) if p.arms == "down" else rng.uniform(0, 35)
    )
    neck_radius = rng.uniform(48, 70)
    head = 30 * ramp(c.z, top + 120, top + 160)
    muscle = superellipse(
        c.x,
        c.y,
        (half[0] + drop) * (1 - neck) + (neck_radius + head) * neck,
        half[1] * (1 - 0.25 * ramp(c.z, 30, top)) * (1 - neck) + (neck_radius + head) * neck,
        2.4,
    )
    if p.arms != "none":
        paint_arms(c, p, rng, half[0] + p.fat, top)
    fat = p.fat * (1 - 0.7 * neck) * (1 + 0.3 * c.noise(rng, 90))
    if rng.random() < 0.35:  # a blanket, with air under it
        c.paint(
            np.abs(muscle - fat - rng.uniform(4, 30) - 6 * c.noise(rng, 60))
            - rng.uniform(0.5, 1.5),
            -300.0,
        )
    c.paint(muscle - fat - 2.0, 20.0)  # skin
    c.paint(muscle - fat, FAT)
    for side in (-1, 1):
        if p.breasts:
            centre = (
                side * p.cavity[0] * rng.uniform(0.5, 0.65),
                -half[1] * 0.8 - p.fat,
                rng.uniform(-70, -20),
            )
            radii = p.breasts * rng.uniform(0.7, 1.1, 3)
            c.ellipsoid(centre, radii, FAT)
            c.ellipsoid(centre, radii * rng.uniform(0.3, 0.7), rng.uniform(-60, 40))
    c.paint(muscle, MUSCLE + 12 * c.noise(rng, 12))
    streaks = np.abs(c.noise(rng, 18)) - rng.uniform(0.05, 0.25)  # fat between the muscles
    c.paint(np.maximum(muscle + 3, streaks * 12), FAT)


def paint_arms(
    c: Canvas, p: Patient, rng: np.random.Generator, half_width: float, top: float
) -> None:
    """Two arms with a bone each, beside the head or beside the trunk, with air between."""
    for side in (-1, 1):
        radius = rng.uniform(28, 50) + 0.3 * p.fat
        shoulder = np.array(
            [side * half_width * rng.uniform(0.75, 0.95), rng.uniform(-10, 25), top - 30]
        )
        reach = [side * rng.uniform(0.5, 1.0) * half_width, rng.uniform(-50, 30), top + 220]
        if p.arms == "down":
            shoulder[0] = side * (half_width + radius * rng.uniform(0.3, 0.9))
            reach = [
                side * (half_width + radius * rng.uniform(0.9, 1.6)),
                rng.uniform(-20, 40),
                -400,
            ]
        for thickness, hu in (
            (radius, FAT),
            (radius * 0.8, MUSCLE),
            (rng.uniform(10, 14), 500.0),
            (6.0, 50.0),
        ):
            c.tube([shoulder, reach], thickness, hu)


def cavity_distance(c: Canvas, p: Patient) -> np.ndarray:
    """Signed distance to the inside of the rib cage: two cones that round off at the lungs' tops."""
    rise = np.clip((c.z + 40) / (p.apex + 40), 0, 1)
    width = np.sqrt(np.maximum(1 - rise**3, 1e-4))
    centre = p.cavity[0] * 0.3 * ramp(c.z, 10, p.apex)
    lateral = np.abs(c.x) - centre
    rx = np.where(
        lateral > 0,
        (p.cavity[0] - centre) * width,
        np.maximum((p.cavity[0] - centre) * width * 0.6, 12),
    )
    lateral = np.where((lateral < 0) & (centre < 5), 0, lateral)
    waist = 1 - 0.15 * ramp(-c.z, 120, 260)
    return superellipse(
        lateral, c.y - 8 * rise, rx * waist, np.maximum(p.cavity[1] * width, 2), p.squareness
    )


def diaphragm(c: Canvas, p: Patient) -> np.ndarray:
    """Height z of the diaphragm under each voxel."""
    side = np.where(c.x > 0, p.domes[0], p.domes[1])
    side = side + (p.domes[1] - p.domes[0]) * np.where(c.x > 0, 0.5, -0.5) * np.exp(
        -np.abs(c.x) / 20
    )
    away = ((np.abs(c.x) - 0.45 * p.cavity[0]) / (0.62 * p.cavity[0])) ** 2 + (
        (c.y + 15) / p.cavity[1]
    ) ** 2
    return side - p.dome_height * np.minimum(away, 2.5) * np.where(c.y > 0, 1.15, 0.75)


def abdomen(
    c: Canvas, p: Patient, rng: np.random.Generator, inside: np.ndarray, dome: np.ndarray
) -> None:
    """Liver, spleen and fat under the diaphragm, and the gas that looks like lung: stomach, colon,
    small bowel.
    """
    below = np.maximum(inside, c.z - dome)
    c.paint(below, FAT)
    liver = c.x + 10 * c.noise(rng, 60) - rng.uniform(-10, 60)
    c.paint(
        np.maximum.reduce([below + 3, liver, p.domes[1] - rng.uniform(90, 170) - c.z]),
        rng.uniform(40, 75) + 0.2 * p.blood_hu,
    )
    reach = p.cavity * [0.8, 0.75]
    c.ellipsoid(
        [0.75 * reach[0], 0.6 * reach[1], p.domes[0] - 50],
        rng.uniform(25, 50, 3),
        50 + 0.2 * p.blood_hu,
    )
    soft = np.maximum(below + 4, -np.abs(c.noise(rng, 28)) * 20 + rng.uniform(5, 14))
    c.paint(np.maximum(soft, p.domes.min() - 30 - c.z - 60), 30.0)
    if rng.random() < 0.75:
        stomach(c, p, rng, below)
    for _ in range(rng.integers(0, 45)):
        bowel(c, p, rng, below, reach)
    for _ in range(rng.integers(0, 4)):  # a length of colon full of gas, much like a trachea
        path = rng.uniform([-0.8, -0.9, -150], [0.8, 0.3, -10], (3, 3)) * [*reach, 1] + [
            0,
            0,
            p.domes.min(),
        ]
        radius = rng.uniform(6, 22)
        c.tube(path, radius + 3, MUSCLE, inside=below < -4)
        c.tube(path, radius, rng.uniform(-1000, -900), inside=below < -7)


def stomach(c: Canvas, p: Patient, rng: np.random.Generator, below: np.ndarray) -> None:
    """A stomach under the left dome: contents below, gas above a level, whichever side is up."""
    up = 1 if p.prone else -1  # the side to which gas rises
    radii = rng.uniform(20, 58, 3)
    centre = np.array(
        [rng.uniform(25, 75), rng.uniform(-40, 20), p.domes[0] - radii[2] - rng.uniform(2, 18)]
    )
    distance = ellipsoid(c.x, c.y, c.z, centre, radii)
    distance = np.maximum(distance, below + rng.uniform(2, 5))
    c.paint(distance - 4, MUSCLE)
    c.paint(distance, rng.uniform(-10, 60))
    level = rng.uniform(-1, 0.9) * radii[1]
    c.paint(np.maximum(distance, -up * (c.y - centre[1]) - level), AIR)


def bowel(
    c: Canvas, p: Patient, rng: np.random.Generator, below: np.ndarray, reach: np.ndarray
) -> None:
    """One loop of colon or small bowel, with gas or contents, often right under the diaphragm."""
    radii = rng.uniform(6, 26) * rng.uniform(0.7, 1.3, 3)
    spot = rng.uniform([-0.6, -1, 0], [1, 0.6, 0]) * [*reach, 0] + [
        0,
        0,
        p.domes.min() - rng.exponential(60) - 15,
    ]
    box = c.box(spot - radii, spot + radii, 30)
    if c.hu[box].size:
        distance = np.maximum(ellipsoid(c.x[box], c.y[box], c.z[box], spot, radii), below[box] + 4)
        c.paint(distance - 3, MUSCLE, box=box)
        c.paint(distance, AIR if rng.random() < 0.7 else rng.uniform(-600, 60), box=box)


def bones(c: Canvas, p: Patient, rng: np.random.Generator, inside: np.ndarray) -> None:
    """Ribs as tilted stripes in the wall, spine with discs, sternum, collar bones, shoulder blades."""
    period = rng.uniform(24, 34) * p.scale
    stripes = np.cos(2 * np.pi * (c.z + rng.uniform(0.3, 0.7) * -c.y) / period) - rng.uniform(
        0.0, 0.5
    )
    ribs = np.maximum(np.abs(inside - rng.uniform(5, 8)) - rng.uniform(3, 5), -stripes * 6)
    c.paint(np.maximum(ribs, c.z - p.apex - 5), rng.uniform(200, 500), BACKGROUND)
    spine = np.hypot(c.x / 1.15, c.y - c.spine_y) - rng.uniform(14, 19) * p.scale
    c.paint(spine, rng.uniform(120, 260), BACKGROUND)
    c.paint(np.maximum(spine, np.cos(2 * np.pi * c.z / (26 * p.scale)) * -8 + 6), 90.0, BACKGROUND)
    arch = np.hypot(c.x, c.y - c.spine_y - 30 * p.scale) - 14
    c.paint(arch, rng.uniform(150, 350), BACKGROUND)
    c.paint(arch + 6, 20.0, BACKGROUND)
    front = -p.cavity[1]
    c.tube(
        [[0, front - 4, -70 * p.scale], [0, front * 0.8 - 6, 35 * p.scale]],
        8,
        rng.uniform(120, 300),
        BACKGROUND,
    )
    for side in (-1, 1):
        shoulder = np.array([side * p.cavity[0] * 1.05, -5, p.apex])
        c.tube(
            [[side * 18, front * 0.75, 40 * p.scale], shoulder],
            6,
            rng.uniform(300, 600),
            BACKGROUND,
        )
        c.tube(
            [shoulder + [side * 10, 30, 0], [side * p.cavity[0] * 0.75, p.cavity[1] + 12, -30]],
            6,
            BONE,
            BACKGROUND,
        )
