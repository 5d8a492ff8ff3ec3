"""Data augmentation for training scans: each step draws its parameters, then applies them.

Steps are random transforms as :mod:`unet3d_tutorial.transforms` defines them, on arrays
``(..., I, J, K)``. Labels are class numbers, not one-hot. Intensity steps leave the label and the
affine unchanged. Spatial steps move image and label together. Voxels that come from outside the
scan get the image's minimum (air), and background in the label. MindSpore is not needed here.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage
from scipy.interpolate import BSpline
from scipy.spatial.transform import Rotation

from .transforms import Pair, RandomTransform
from .transforms.base import Parameters, Seed
from .transforms.resampling import apply_along, linear_weights, resampling_weights
from .volume import Volume

#: The longest displacement along an axis, as a fraction of the distance between control points.
#: Below this limit no field of cubic B-splines folds (Choi and Lee, 2000).
LONGEST_DISPLACEMENT = 0.4


class OccasionalTransform(RandomTransform[Parameters]):
    """A random transform that acts only with probability ``chance``, from 0 to 1.

    A subclass overrides :meth:`draw_parameters` and :meth:`apply`.
    """

    def __init__(self, chance: float, seed: Seed):
        super().__init__(seed)
        self.chance = chance

    def draw(self, shape: Sequence[int]) -> Parameters | None:
        """Parameters for an image array of this shape, or ``None`` to leave it as it is."""
        if self.rng.random() >= self.chance:
            return None
        return self.draw_parameters(shape)

    def draw_parameters(self, shape: Sequence[int]) -> Parameters:
        """Parameters for an image array of this shape, if the transform acts."""
        raise NotImplementedError


# ------------------------------------------------------------------------------------- intensities


class RandomShift(RandomTransform[np.float32]):
    """Add one random offset, with standard deviation ``std_hu`` in HU, to the whole image.

    Scanners differ by some tens of HU.

    >>> scan = Volume(np.zeros((1, 40, 50, 60), np.float32), np.eye(4))
    >>> shifted, _ = RandomShift().apply(scan, None, np.float32(30))
    >>> float(shifted.array.mean())
    30.0
    """

    def __init__(self, std_hu: float = 25.0, seed: Seed = 0):
        super().__init__(seed)
        self.std_hu = std_hu

    def draw(self, shape: Sequence[int]) -> np.float32:
        """The offset in HU."""
        return np.float32(self.rng.normal(0, self.std_hu))

    def apply(self, image: Volume, label: Volume | None, parameters: np.float32) -> Pair:
        """Add the offset that was drawn."""
        return replace(image, array=image.array + parameters), label


class RandomNoise(OccasionalTransform[np.ndarray]):
    """With probability ``chance``, add Gaussian noise of up to ``max_std_hu`` HU.

    The standard deviation is drawn uniformly from 0 to ``max_std_hu``.
    """

    def __init__(self, max_std_hu: float = 50.0, chance: float = 0.3, seed: Seed = 0):
        super().__init__(chance, seed)
        self.max_std_hu = max_std_hu

    def draw_parameters(self, shape: Sequence[int]) -> np.ndarray:
        """The noise of each voxel in HU, of the image's shape."""
        std_hu = np.float32(self.rng.uniform(0, self.max_std_hu))
        return std_hu * self.rng.standard_normal(shape, dtype=np.float32)

    def apply(self, image: Volume, label: Volume | None, parameters: np.ndarray) -> Pair:
        """Add the noise that was drawn."""
        return replace(image, array=image.array + parameters), label


class RandomBlur(OccasionalTransform[float]):
    """With probability ``chance``, smooth the image as a softer reconstruction kernel would.

    The kernel is a Gaussian. Its standard deviation is 0.3 to ``max_sigma`` voxels along each
    array axis.
    """

    def __init__(self, max_sigma: float = 0.9, chance: float = 0.3, seed: Seed = 0):
        super().__init__(chance, seed)
        self.max_sigma = max_sigma

    def draw_parameters(self, shape: Sequence[int]) -> float:
        """The standard deviation of the Gaussian, in voxels."""
        return self.rng.uniform(0.3, self.max_sigma)

    def apply(self, image: Volume, label: Volume | None, parameters: float) -> Pair:
        """Smooth with the standard deviation that was drawn."""
        array = image.array.astype(np.float32)
        for axis in (-3, -2, -1):
            array = ndimage.gaussian_filter1d(array, parameters, axis=axis, truncate=2.5)
        return replace(image, array=array), label


class RandomLowResolution(OccasionalTransform[float]):
    """With probability ``chance``, imitate a scan with larger voxels, on the same grid.

    The imitated voxels are up to ``max_factor`` times as long: along each array axis the image is
    averaged down and then interpolated back.

    Raises ``ValueError`` for a ``max_factor`` below 1.
    """

    def __init__(self, max_factor: float = 2.0, chance: float = 0.3, seed: Seed = 0):
        if max_factor < 1:
            raise ValueError(f"max_factor: expected at least 1, found {max_factor}")
        super().__init__(chance, seed)
        self.max_factor = max_factor

    def draw_parameters(self, shape: Sequence[int]) -> float:
        """The factor by which the imitated voxels are longer."""
        return self.rng.uniform(1, self.max_factor)

    def apply(self, image: Volume, label: Volume | None, parameters: float) -> Pair:
        """Average down by the factor that was drawn, and interpolate back."""
        array = image.array.astype(np.float32, copy=False)
        for axis in (-3, -2, -1):
            fine = array.shape[axis]
            coarse = max(1, round(fine / parameters))
            coarse_centres = (np.arange(coarse) + 0.5) * fine / coarse - 0.5  # in fine voxels
            fine_centres = (np.arange(fine) + 0.5) * coarse / fine - 0.5  # in coarse voxels
            down = resampling_weights(coarse_centres, fine, fine / coarse)
            up = linear_weights(fine_centres, coarse)
            array = apply_along(up @ down, array, axis)
        return replace(image, array=array), label


class RandomGamma(OccasionalTransform[np.float32]):
    """With probability ``chance``, raise an image scaled to 0..1 to a random power.

    The contrast changes; 0 and 1 stay as they are. The logarithm of the power is normally
    distributed with mean 0 and standard deviation ``log_std``.

    >>> image = Volume(np.array([[[0.0, 0.5, 1.0]]]), np.eye(4))
    >>> RandomGamma().apply(image, None, np.float32(2))[0].array.tolist()
    [[[0.0, 0.25, 1.0]]]
    """

    def __init__(self, log_std: float = 0.2, chance: float = 0.4, seed: Seed = 0):
        super().__init__(chance, seed)
        self.log_std = log_std

    def draw_parameters(self, shape: Sequence[int]) -> np.float32:
        """The power."""
        return np.float32(np.exp(self.rng.normal(0, self.log_std)))

    def apply(self, image: Volume, label: Volume | None, parameters: np.float32) -> Pair:
        """Raise to the power that was drawn; values outside 0..1 are clipped first."""
        return replace(image, array=np.clip(image.array, 0, 1) ** parameters), label


# ------------------------------------------------------------------------------------------ spatial


class RandomFlip(OccasionalTransform[bool]):
    """With probability ``chance``, mirror the patient left to right.

    The two label values in ``swap``, left and right, are exchanged. The mirror plane is at 0 mm,
    so run :class:`~unet3d_tutorial.transforms.CenterOnBody` first. The affine becomes that of the
    mirrored patient: a point that was x mm to the right is now at -x mm.

    Raises ``ValueError`` if no array axis points to the left or right.

    >>> label = Volume(np.array([1, 0, 0, 2]).reshape(1, 4, 1, 1), np.eye(4))
    >>> RandomFlip(chance=1)(label, label)[1].array.ravel().tolist()
    [1, 0, 0, 2]
    """

    def __init__(self, swap: tuple[int, int] = (1, 2), chance: float = 0.5, seed: Seed = 0):
        super().__init__(chance, seed)
        self.swap = tuple(swap)

    def draw_parameters(self, shape: Sequence[int]) -> bool:
        """Always ``True``: mirror."""
        return True

    def apply(self, image: Volume, label: Volume | None, parameters: bool) -> Pair:
        """Mirror; ``parameters`` are ignored."""
        lateral = self._lateral_axis(image)
        array_axis = lateral - 3
        turn = np.eye(4)  # from an index of the mirrored array to one of the old array
        turn[lateral, lateral] = -1
        turn[lateral, 3] = image.array.shape[array_axis] - 1
        mirror = np.diag([-1.0, 1, 1, 1])
        affine = mirror @ image.affine @ turn
        if label is not None:
            flipped = np.flip(label.array, array_axis)
            label = Volume(self._exchange_sides(flipped), affine)
        return Volume(np.flip(image.array, array_axis), affine), label

    def _lateral_axis(self, image: Volume) -> int:
        """Which of the axes I, J, K points to the left or right: 0, 1 or 2."""
        codes = image.axis_codes
        for axis, code in enumerate(codes):
            if code in ("L", "R"):
                return axis
        raise ValueError(
            f"image: expected an axis that points to the left or right, found {codes!r}"
        )

    def _exchange_sides(self, label: np.ndarray) -> np.ndarray:
        left, right = self.swap
        exchanged = np.where(label == left, right, np.where(label == right, left, label))
        return exchanged.astype(label.dtype)


class RandomAffine(OccasionalTransform[tuple[np.ndarray, float]]):
    """With probability ``chance``, rotate the patient about the grid's centre and scale it.

    Rotation angles about the three array axes are within ``max_degrees`` in both directions; the
    scale factor is from ``1 / max_scale`` to ``max_scale``. The rotation is computed in mm, so a
    ball stays a ball even if voxels are not cubes. The image is interpolated linearly, the label
    by nearest neighbour. The affine does not change: the patient moves, the grid does not.

    Raises ``ValueError`` for a ``max_scale`` below 1.
    """

    def __init__(
        self,
        max_degrees: float = 15.0,
        max_scale: float = 1.15,
        chance: float = 0.5,
        seed: Seed = 0,
    ):
        if max_scale < 1:
            raise ValueError(f"max_scale: expected at least 1, found {max_scale}")
        super().__init__(chance, seed)
        self.max_degrees = max_degrees
        self.max_scale = max_scale

    def draw_parameters(self, shape: Sequence[int]) -> tuple[np.ndarray, float]:
        """Three angles in degrees, and the scale factor."""
        angles = self.rng.uniform(-self.max_degrees, self.max_degrees, 3)
        limit = np.log(self.max_scale)
        scale = np.exp(self.rng.uniform(-limit, limit))
        return angles, float(scale)

    def apply(
        self, image: Volume, label: Volume | None, parameters: tuple[np.ndarray, float]
    ) -> Pair:
        """Rotate by the angles and scale by the factor that were drawn."""
        angles, scale = parameters
        millimetres = np.diag(image.spacing_mm)
        turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
        # From the index of a new voxel to the index in the old image that it comes from.
        matrix = np.linalg.inv(millimetres) @ turn.T @ millimetres / scale
        centre = (np.array(image.array.shape[-3:]) - 1) / 2
        offset = centre - matrix @ centre

        def turned(channel: np.ndarray, **options) -> np.ndarray:
            return ndimage.affine_transform(channel, matrix, offset, **options)

        return _resample(turned, image, label)


class RandomElastic(OccasionalTransform[np.ndarray]):
    """With probability ``chance``, deform the patient as if made of rubber.

    Displacements of standard deviation ``std_mm`` are drawn at ``points`` control points along each
    axis, and interpolated by cubic B-splines (Rueckert et al., 1999). Each is limited to 0.4 times
    the distance between control points along its axis: below that, no such field folds (Choi and
    Lee, 2000). The image is interpolated linearly, the label by nearest neighbour. The affine does
    not change: the patient moves, the grid does not.

    Raises ``ValueError`` for fewer than 4 control points.
    """

    def __init__(
        self,
        std_mm: float = 6.0,
        points: int = 7,
        chance: float = 0.5,
        seed: Seed = 0,
    ):
        if points < 4:
            raise ValueError(f"points: expected at least 4 along each axis, found {points}")
        super().__init__(chance, seed)
        self.std_mm = std_mm
        self.points = points

    def draw_parameters(self, shape: Sequence[int]) -> np.ndarray:
        """Displacements in mm along the array axes, ``(3, points, points, points)``."""
        return self.rng.normal(0, self.std_mm, (3, *[self.points] * 3))

    def apply(self, image: Volume, label: Volume | None, parameters: np.ndarray) -> Pair:
        """Deform by the displacements that were drawn."""
        places = self.places(parameters, image)

        def bent(channel: np.ndarray, **options) -> np.ndarray:
            return ndimage.map_coordinates(channel, places, **options)

        return _resample(bent, image, label)

    def places(self, displacements: np.ndarray, image: Volume) -> np.ndarray:
        """Where each voxel of the deformed image comes from: indices ``(3, I, J, K)``, float32.

        ``displacements`` are those of the control points in mm, as :meth:`draw_parameters` gives
        them. The indices are fractional.
        """
        shape = image.array.shape[-3:]
        intervals = self.points - 3  # between control points, along each axis
        longest = LONGEST_DISPLACEMENT * (np.array(shape) - 1) / intervals  # voxels
        longest = longest.reshape(3, 1, 1, 1)
        spacing_mm = np.reshape(image.spacing_mm, (3, 1, 1, 1))
        voxels = np.clip(displacements / spacing_mm, -longest, longest).astype(np.float32)
        i, j, k = (self._spline_weights(length) for length in shape)
        field = np.einsum("ia,jb,kc,dabc->dijk", i, j, k, voxels, optimize=True)
        return field + np.indices(shape, np.float32)

    def _spline_weights(self, length: int) -> np.ndarray:
        """The weight of each control point at each voxel of an axis, ``(length, points)``."""
        knots = np.arange(self.points + 4)
        positions = np.linspace(3, self.points, length)
        return BSpline.design_matrix(positions, knots, 3).toarray().astype(np.float32)


def _resample(step: Callable[..., np.ndarray], image: Volume, label: Volume | None) -> Pair:
    """Run a function of SciPy's on each channel of image and label.

    The image is interpolated linearly, as float32, and filled with its minimum; the label takes the
    nearest voxel and is filled with background.
    """
    air = image.array.min()
    array = _each_channel(step, image.array.astype(np.float32, copy=False), order=1, fill=air)
    if label is not None:
        label = replace(label, array=_each_channel(step, label.array, order=0, fill=0))
    return replace(image, array=array), label


def _each_channel(
    step: Callable[..., np.ndarray], array: np.ndarray, *, order: int, fill: float
) -> np.ndarray:
    """Run ``step`` on each ``(I, J, K)`` of an array ``(..., I, J, K)``."""
    channels = array.reshape(-1, *array.shape[-3:])
    results = [step(channel, order=order, mode="constant", cval=fill) for channel in channels]
    return np.stack(results).reshape(array.shape)
