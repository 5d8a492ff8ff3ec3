"""Random variation of training scans: each step draws its parameters first (``draw``), then applies
them (``apply``).

Steps are callables ``(image, label) -> (image, label)`` like those of
:mod:`unet3d_tutorial.transforms`, on arrays ``(..., I, J, K)``, pure, each with a random stream of
its own. Labels are class numbers, not one-hot. What a spatial step moves in from outside is filled
with the image's minimum (air) and with background. MindSpore is not needed here.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage
from scipy.interpolate import BSpline
from scipy.spatial.transform import Rotation

from .transforms import Pair, RandomTransform, along, linear_weights, resampling_weights
from .volume import Volume


class _WithChance(RandomTransform):
    """A random step that acts with chance ``chance`` only."""

    chance: float

    def draw(self, shape: Sequence[int]):
        return self._draw(shape) if self.rng.random() < self.chance else None


# --------------------------------------------------------------------------------- intensity: HU in
class RandomShift(RandomTransform):
    """Add one random number of HU to the whole image: scanners differ by some tens of HU.

    Label and affine stay.
    """

    def __init__(self, std_hu: float = 25.0, seed: int | Sequence[int] = 0):
        self.std_hu = std_hu
        self.set_random_state(seed)

    def draw(self, shape: Sequence[int]) -> np.float32:
        """HU to add."""
        return np.float32(self.rng.normal(0, self.std_hu))

    def apply(self, image: Volume, label: Volume | None, parameters: np.float32) -> Pair:
        return replace(image, array=image.array + parameters), label


class RandomNoise(_WithChance):
    """With chance ``chance``, add Gaussian noise of up to ``max_std_hu``. Label and affine stay."""

    def __init__(
        self, max_std_hu: float = 50.0, chance: float = 0.3, seed: int | Sequence[int] = 0
    ):
        self.max_std_hu = max_std_hu
        self.chance = chance
        self.set_random_state(seed)

    def _draw(self, shape: Sequence[int]) -> np.ndarray:
        """HU to add to each voxel."""
        std = np.float32(self.rng.uniform(0, self.max_std_hu))
        return std * self.rng.standard_normal(shape, dtype=np.float32)

    def apply(self, image: Volume, label: Volume | None, parameters: np.ndarray) -> Pair:
        return replace(image, array=image.array + parameters), label


class RandomBlur(_WithChance):
    """With chance ``chance``, smooth with a Gaussian of 0.3 to ``max_sigma`` voxels, as a softer
    kernel would.

    Label and affine stay.
    """

    def __init__(self, max_sigma: float = 0.9, chance: float = 0.3, seed: int | Sequence[int] = 0):
        self.max_sigma = max_sigma
        self.chance = chance
        self.set_random_state(seed)

    def _draw(self, shape: Sequence[int]) -> float:
        """Standard deviation in voxels."""
        return self.rng.uniform(0.3, self.max_sigma)

    def apply(self, image: Volume, label: Volume | None, parameters: float) -> Pair:
        array = image.array.astype(np.float32)
        for axis in (-3, -2, -1):
            array = ndimage.gaussian_filter1d(array, parameters, axis=axis, truncate=2.5)
        return replace(image, array=array), label


class RandomLowResolution(_WithChance):
    """With chance ``chance``, make the image as coarse as voxels up to ``max_factor`` times as long
    would, on the same grid.

    It is averaged down and interpolated back, along each array axis. Label and affine stay.
    """

    def __init__(self, max_factor: float = 2.0, chance: float = 0.3, seed: int | Sequence[int] = 0):
        if max_factor < 1:
            raise ValueError(f"max_factor: expected at least 1, found {max_factor}")
        self.max_factor = max_factor
        self.chance = chance
        self.set_random_state(seed)

    def _draw(self, shape: Sequence[int]) -> float:
        """How many times as long the voxels are."""
        return self.rng.uniform(1, self.max_factor)

    def apply(self, image: Volume, label: Volume | None, parameters: float) -> Pair:
        array = image.array.astype(np.float32, copy=False)
        for axis in (-3, -2, -1):
            fine = array.shape[axis]
            coarse = max(1, round(fine / parameters))
            down = resampling_weights(
                (np.arange(coarse) + 0.5) * fine / coarse - 0.5, fine, fine / coarse
            )
            up = linear_weights((np.arange(fine) + 0.5) * coarse / fine - 0.5, coarse)
            array = along(up @ down, array, axis)
        return replace(image, array=array), label


class RandomGamma(_WithChance):
    """With chance ``chance``, raise an image scaled to 0..1 to a random power: contrast changes,
    the ends stay.

    Label and affine stay.
    """

    def __init__(self, log_std: float = 0.2, chance: float = 0.4, seed: int | Sequence[int] = 0):
        self.log_std = log_std
        self.chance = chance
        self.set_random_state(seed)

    def _draw(self, shape: Sequence[int]) -> np.float32:
        """The power."""
        return np.float32(np.exp(self.rng.normal(0, self.log_std)))

    def apply(self, image: Volume, label: Volume | None, parameters: np.float32) -> Pair:
        return replace(image, array=np.clip(image.array, 0, 1) ** parameters), label


# ------------------------------------------------------------------------------------------ spatial
class RandomFlip(_WithChance):
    """With chance ``chance``, mirror the patient left to right and exchange the label values
    ``swap``, left and right.

    The plane of the mirror is at 0 mm, so run :class:`~unet3d_tutorial.transforms.CenterOnBody`
    before. The affine becomes the mirrored patient's: what was at x mm to the right is now at -x
    mm. Raises ``ValueError`` if no array axis points to the left or right.
    """

    def __init__(
        self, swap: tuple[int, int] = (1, 2), chance: float = 0.5, seed: int | Sequence[int] = 0
    ):
        self.swap = tuple(swap)
        self.chance = chance
        self.set_random_state(seed)

    def _draw(self, shape: Sequence[int]) -> bool:
        """Always ``True``: mirror."""
        return True

    def apply(self, image: Volume, label: Volume | None, parameters: bool) -> Pair:
        codes = image.axis_codes
        if not {"L", "R"} & set(codes):
            raise ValueError(
                f"image: expected an axis that points to the left or right, found {codes!r}"
            )
        axis = next(number for number, code in enumerate(codes) if code in "LR")
        turn, mirror = np.eye(4), np.diag([-1.0, 1, 1, 1])
        turn[axis, axis], turn[axis, 3] = -1, image.array.shape[axis - 3] - 1
        affine = mirror @ image.affine @ turn
        image = Volume(np.flip(image.array, axis - 3), affine)
        return image, None if label is None else Volume(
            self._exchange(np.flip(label.array, axis - 3)), affine
        )

    def _exchange(self, label: np.ndarray) -> np.ndarray:
        left, right = self.swap
        return np.where(label == left, right, np.where(label == right, left, label)).astype(
            label.dtype
        )


class RandomAffine(_WithChance):
    """With chance ``chance``, turn the patient about the centre of the grid and change his size.

    Angles about the three array axes are up to ``max_degrees`` either way; sizes from ``1 /
    max_scale`` to ``max_scale``. Millimetres count, so a turned sphere stays one if voxels are not
    cubes. The image is interpolated linearly, the label takes the nearest voxel. The affine stays:
    the patient moves, the grid does not.
    """

    def __init__(
        self,
        max_degrees: float = 15.0,
        max_scale: float = 1.15,
        chance: float = 0.5,
        seed: int | Sequence[int] = 0,
    ):
        if max_scale < 1:
            raise ValueError(f"max_scale: expected at least 1, found {max_scale}")
        self.max_degrees = max_degrees
        self.max_scale = max_scale
        self.chance = chance
        self.set_random_state(seed)

    def _draw(self, shape: Sequence[int]) -> tuple[np.ndarray, float]:
        """Three angles in degrees, and the factor by which the patient grows."""
        limit = np.log(self.max_scale)
        return self.rng.uniform(-self.max_degrees, self.max_degrees, 3), float(
            np.exp(self.rng.uniform(-limit, limit))
        )

    def apply(
        self, image: Volume, label: Volume | None, parameters: tuple[np.ndarray, float]
    ) -> Pair:
        angles, scale = parameters
        millimetres = np.diag(image.spacing_mm)
        turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
        # From a new voxel back to where it was.
        matrix = np.linalg.inv(millimetres) @ turn.T @ millimetres / scale
        centre = (np.array(image.array.shape[-3:]) - 1) / 2
        offset = centre - matrix @ centre
        return _resample(
            lambda array, **how: ndimage.affine_transform(array, matrix, offset, **how),
            image,
            label,
        )


class RandomElastic(_WithChance):
    """With chance ``chance``, bend the patient as if made of rubber, by displacements of standard
    deviation ``std_mm``.

    They are drawn at ``points`` control points along each axis and spread by cubic B-splines
    (Rueckert et al., 1999). None is longer than 0.4 of the distance of control points along its
    axis: below that no such field folds (Choi and Lee, 2000). The image is interpolated linearly,
    the label takes the nearest voxel. The affine stays: the patient moves.
    """

    def __init__(
        self,
        std_mm: float = 6.0,
        points: int = 7,
        chance: float = 0.5,
        seed: int | Sequence[int] = 0,
    ):
        if points < 4:
            raise ValueError(f"points: expected at least 4 along each axis, found {points}")
        self.std_mm = std_mm
        self.points = points
        self.chance = chance
        self.set_random_state(seed)

    def _draw(self, shape: Sequence[int]) -> np.ndarray:
        """Displacements of the control points in mm along the array axes, ``(3, points, points,
        points)``.
        """
        return self.rng.normal(0, self.std_mm, (3, *[self.points] * 3))

    def apply(self, image: Volume, label: Volume | None, parameters: np.ndarray) -> Pair:
        places = self.places(parameters, image)
        return _resample(
            lambda array, **how: ndimage.map_coordinates(array, places, **how), image, label
        )

    def places(self, displacements: np.ndarray, image: Volume) -> np.ndarray:
        """Where each voxel of the bent image comes from: fractional indices ``(3, I, J, K)``,
        float32.
        """
        shape = image.array.shape[-3:]
        knots = np.arange(self.points + 4)
        i, j, k = (
            BSpline.design_matrix(np.linspace(3, self.points, n), knots, 3)
            .toarray()
            .astype(np.float32)
            for n in shape
        )
        limit = 0.4 * (np.array(shape) - 1) / (self.points - 3)  # voxels
        voxels = np.clip(
            displacements / np.reshape(image.spacing_mm, (3, 1, 1, 1)), *_columns(-limit, limit)
        )
        field = np.einsum("ia,jb,kc,dabc->dijk", i, j, k, voxels.astype(np.float32), optimize=True)
        return field + np.indices(shape, np.float32)


def _columns(*limits: np.ndarray) -> list[np.ndarray]:
    return [limit.reshape(3, 1, 1, 1) for limit in limits]


def _resample(step: Callable[..., np.ndarray], image: Volume, label: Volume | None) -> Pair:
    """Run ``step`` on each channel: linear for the image, nearest for the label, air and background
    from outside.
    """

    def each(array: np.ndarray, order: int, fill: float) -> np.ndarray:
        channels = array.reshape(-1, *array.shape[-3:])
        return np.stack(
            [step(c, order=order, mode="constant", cval=fill) for c in channels]
        ).reshape(array.shape)

    air = image.array.min()
    image = replace(image, array=each(image.array.astype(np.float32, copy=False), 1, air))
    return image, None if label is None else replace(label, array=each(label.array, 0, 0))
