"""A phantom's lungs with their diseases, and what stands between them: heart, vessels, oesophagus,
airway.
"""

import numpy as np

from ..labels import LEFT_LUNG, RIGHT_LUNG, TRACHEA
from .canvas import AIR, BACKGROUND, Canvas, capsule, ellipsoid, ramp
from .patient import Patient

# mm, path.
OESOPHAGUS = np.array(
    [[8.0, 34.0, -140.0], [3.0, 24.0, -20.0], [4.0, 22.0, 60.0], [2.0, 22.0, 150.0]]
)


def mediastinum_distance(
    c: Canvas, p: Patient, rng: np.random.Generator, airways: tuple[np.ndarray, ...]
) -> np.ndarray:
    """Signed distance to what stands between the lungs: septum, heart, great vessels, spine, airway
    and hila.

    It leaves the places of spine, heart and oesophagus on the canvas, for those who paint them
    later.
    """
    s = p.scale
    # Lungs nearly touch behind the sternum.
    front = ramp(-c.y, 5, 45) * ramp(c.z, -70, -20) * ramp(-c.z, -75, -40)
    half = (rng.uniform(15, 24) + 12 * ramp(c.z, 40, p.apex)) * s * (
        1 - front
    ) + p.junction / 2 * front
    septum = np.abs(c.x - rng.uniform(-5, 5) - rng.uniform(-14, 14) * front) - half
    # The main bronchi run in fat and vessels until they enter the lungs.
    root = np.array([rng.uniform(-4, 4), 4, -14]) * s
    parts = [septum, ellipsoid(c.x, c.y, c.z, root, rng.uniform([28, 22, 22], [46, 36, 40]) * s)]
    parts = [np.maximum(np.minimum(*parts), -recesses(c, p, rng))]
    heart_radii = np.array([rng.uniform(46, 72), rng.uniform(36, 58), rng.uniform(45, 62)]) * s
    heart = np.array([rng.uniform(14, 30), -rng.uniform(22, 40), -rng.uniform(60, 80)]) * s
    parts.append(ellipsoid(c.x, c.y, c.z, heart, heart_radii))
    c.oesophagus = (
        OESOPHAGUS + [rng.uniform(-4, 12), rng.uniform(-3, 4), 0]
    ) * s  # often left of the trachea
    spine_y = p.cavity[1] * rng.uniform(0.42, 0.72)
    parts.append(np.hypot(c.x, (c.y - spine_y)) - rng.uniform(18, 25) * s)
    parts.append(
        np.maximum(np.hypot(c.x - 22 * s, c.y - 35 * s) - rng.uniform(11, 18), c.z - 40 * s)
    )
    for path, radius in (
        (np.array([[-12, -25, 30], [24, 30, 32]]) * s, rng.uniform(13, 19)),  # arch of the aorta
        *((path, p.trachea_radius + rng.uniform(0.3, 3)) for path in airways),
        (c.oesophagus, rng.uniform(7, 11)),
    ):
        for a, b in zip(path[:-1], path[1:], strict=True):
            parts.append(capsule(c.x, c.y, c.z, a, b) - radius)
    for side in (-1, 1):
        parts.append(
            ellipsoid(
                c.x,
                c.y,
                c.z,
                np.array([side * rng.uniform(30, 44), 4, -24]) * s,
                rng.uniform(8, 22, 3) * s,
            )
        )
    c.spine_y = spine_y
    c.heart = heart
    c.heart_radii = heart_radii
    return np.minimum.reduce(parts)


def recesses(c: Canvas, p: Patient, rng: np.random.Generator) -> np.ndarray:
    """Signed distance to the pockets of lung that reach the middle plane behind and beside the
    airway.

    The azygo-oesophageal recess below the carina and the retrotracheal one above it, on the right;
    the one over the arch of the aorta, on the left; and the right lung where it touches the
    trachea. Without them a network learns that all air near the middle is trachea.
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
            centre = (
                np.array([side * 30 + lean[0] * height, rng.uniform(*y) + lean[1] * height, height])
                * p.scale
            )
            radii = (
                np.array([rng.uniform(*reach), rng.uniform(8, 24), rng.uniform(20, 50)]) * p.scale
            )
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


def grow_vessel(
    c: Canvas, p: Patient, rng: np.random.Generator, root: np.ndarray, side: int, inside
) -> None:
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
    """Consolidation, ground glass, emphysema, nodules and masses stay lung; an effusion is not
    lung.
    """
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
        fill(
            (c.noise(rng, rng.uniform(10, 30)) - rng.uniform(0.3, 1.2)) * 3, rng.uniform(-980, -920)
        )
    if rng.random() < 0.2:  # fibrosis: a net under the pleura
        fill(
            (np.abs(c.noise(rng, 9)) < 0.35) * np.exp(lung / rng.uniform(10, 25)),
            rng.uniform(-400, 0),
        )
    for _ in range(rng.poisson(1.0)):  # nodules and masses
        centre = rng.normal(0, 1, 3) * [80, 45, 70]
        fill(
            -ellipsoid(
                c.x, c.y, c.z, centre, rng.choice([5, 10, 18, 32]) * rng.uniform(0.7, 1.4, 3)
            )
            / 4,
            rng.uniform(-50, 80),
        )
    if rng.random() < 0.2:  # effusion: fluid that settles on the lower side, on one side or both
        low = -c.y if p.prone else c.y
        level = rng.uniform(0.1, 0.75) * p.cavity[1] - 0.35 * np.maximum(
            -c.z - rng.uniform(0, 120), 0
        )
        side = c.x * rng.choice([-1, 1]) > 0 if rng.random() < 0.7 else np.ones_like(c.x, bool)
        fluid = np.maximum(np.where(side, level - low, 1e3), lung)
        atelectasis = np.maximum(fluid - rng.uniform(2, 14), lung)
        c.paint(atelectasis, rng.uniform(20, 70))
        c.paint(fluid, rng.uniform(0, 30), BACKGROUND)


def mediastinum(c: Canvas, p: Patient, rng: np.random.Generator) -> None:
    """Heart with its fat, aorta, vena cava, pulmonary trunk, oesophagus (at times with gas)."""
    s, blood = p.scale, p.blood_hu
    c.ellipsoid(c.heart, c.heart_radii - rng.uniform(3, 10), 0.5 * blood + 25, BACKGROUND)
    c.ellipsoid(
        c.heart + [8, 0, 5], (c.heart_radii - 8) * rng.uniform(0.4, 0.7, 3), blood, BACKGROUND
    )
    aorta = rng.uniform(9, 16)
    c.tube(
        np.array(
            [[5, -25, -40], [-12, -28, 25], [2, -8, 38], [22, 22, 34], [23, 35, 5], [20, 40, -260]]
        )
        * s,
        aorta,
        blood,
        BACKGROUND,
    )
    c.tube(
        np.array([[-22, -22, -40], [-22, -18, 60]]) * s,
        rng.uniform(6, 11),
        blood * rng.uniform(0.7, 1.6),
        BACKGROUND,
    )
    c.tube(
        np.array([[12, -25, -30], [12, -15, -8], [-25, 0, -14]]) * s,
        rng.uniform(7, 13),
        blood,
        BACKGROUND,
    )
    c.tube(
        np.array([[14, -14, -6], [34, 8, -4], [46, 14, -20]]) * s,
        rng.uniform(6, 11),
        blood,
        BACKGROUND,
    )
    c.tube(np.array([[-25, 0, -14], [-44, 6, -26]]) * s, rng.uniform(6, 10), blood, BACKGROUND)
    c.ellipsoid(
        np.array([4, 14, -rng.uniform(44, 58)]) * s,
        rng.uniform([28, 14, 14], [42, 24, 24]) * s,
        blood,
        BACKGROUND,
    )
    for _ in range(rng.integers(0, 8)):  # lymph nodes around the bronchi
        c.ellipsoid(
            rng.normal(0, 1, 3) * [22, 12, 20] + [0, 0, -8],
            rng.uniform(3, 11, 3),
            rng.uniform(10, 70),
            BACKGROUND,
        )
    upper_vessels(c, p, rng)
    path = c.oesophagus
    c.tube(path, rng.uniform(5, 9), 40.0, BACKGROUND)
    if rng.random() < 0.35:
        first = rng.integers(0, 3)
        c.tube(path[first : first + 2], rng.uniform(1.5, 7), AIR, BACKGROUND)


def upper_vessels(c: Canvas, p: Patient, rng: np.random.Generator) -> None:
    """Vessels to neck and arms; through one arm the contrast agent may come in, dense enough to
    cast streaks.
    """
    s, blood = p.scale, p.blood_hu
    inflow = rng.choice([-1, 0, 1])  # the arm that the contrast agent comes through, if any
    for side in (-1, 1):
        dense = rng.uniform(400, 2500) if side == inflow else blood
        c.tube(
            np.array([[side * 8, -20, 38], [side * 24, -12, 75], [side * 30, -5, 160]]) * s,
            rng.uniform(4, 8),
            blood,
            BACKGROUND,
        )
        # The vessels of an arm run over the lung's top, not through it.
        over = p.apex / s + rng.uniform(8, 15)
        c.tube(
            np.array(
                [
                    [-20, -22, 40],
                    [side * 12, -26, 62],
                    [side * 18, -24, over],
                    [side * 80, -15, over],
                ]
            )
            * s,
            rng.uniform(4, 8),
            dense,
            BACKGROUND,
        )
    if inflow:
        beam_hardening(
            c, rng, np.array([inflow * rng.uniform(-25, 60), -22, rng.uniform(30, 85)]) * s
        )


def beam_hardening(c: Canvas, rng: np.random.Generator, centre: np.ndarray) -> None:
    """Dark and bright rays in the axial plane around a vessel full of contrast agent."""
    x, y = c.x - centre[0], c.y - centre[1]
    rays = np.cos(rng.integers(2, 7) * np.arctan2(y, x) + rng.uniform(0, 2 * np.pi))
    fade = np.exp(
        -np.hypot(x, y) / rng.uniform(15, 40) - ((c.z - centre[2]) / rng.uniform(10, 30)) ** 2
    )
    c.hu += rng.uniform(80, 400) * (rays - 0.3) * fade * (c.hu > -980)


def airway_paths(p: Patient, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Middle lines of the trachea and of the right and the left main bronchus, in mm, ``(points,
    3)`` each.
    """
    s = p.scale
    trachea = np.array(
        [[0, 0, 2], p.trachea_top * [0.5, rng.uniform(0.3, 0.55), 0.5] - [2, 0, 0], p.trachea_top]
    )
    right = (
        np.array(
            [
                [0, 0, 4],
                [-rng.uniform(14, 21), 3, -rng.uniform(8, 14)],
                [-rng.uniform(29, 38), 6, -rng.uniform(17, 34)],
            ]
        )
        * s
    )
    left = (
        np.array(
            [
                [0, 0, 4],
                [rng.uniform(17, 24), 5, -rng.uniform(7, 13)],
                [rng.uniform(39, 50), 12, -rng.uniform(15, 32)],
            ]
        )
        * s
    )
    return trachea, right, left


def airway(c: Canvas, p: Patient, rng: np.random.Generator, paths: tuple[np.ndarray, ...]) -> None:
    """Larynx, trachea and bronchi, with their walls.

    The label runs from below the larynx into the main bronchi, to about 20 mm below the carina, and
    includes the wall.
    """
    s, r = p.scale, p.trachea_radius
    trachea, right, left = paths
    above = np.array([trachea[-1], trachea[-1] + [0, -4, 30], trachea[-1] + [0, 5, 110]])
    lobes = [
        (
            np.array([right[-1], right[-1] + [-6, 5, -18], right[-1] + [-14, 12, -45]]),
            rng.uniform(0.5, 0.85),
        ),
        (np.array([right[1], right[1] + [-28, 0, 18]]), rng.uniform(0.4, 0.7)),
        (
            np.array([left[-1], left[-1] + [6, 8, -15], left[-1] + [14, 16, -40]]),
            rng.uniform(0.5, 0.8),
        ),
        (np.array([left[-1], left[-1] + [22, -12, 12]]), rng.uniform(0.4, 0.7)),
    ]
    label_end = -rng.uniform(16, 24) * s
    wall, air = rng.uniform(0.6, 2.2), rng.uniform(-1000, -955)
    labelled = [
        (right, r * np.array([0.9, 0.8, 0.65])),
        (left, r * np.array([0.9, 0.75, 0.6])),
        (trachea, r * np.ones(3)),
    ]
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
        c.ellipsoid(
            above[-1] + rng.normal(0, 1, 3) * [10, 20, 20] + [0, -20, 15],
            rng.uniform(6, 22, 3),
            air,
        )
    for path, radii in labelled:
        c.tube(path, radii, air)
