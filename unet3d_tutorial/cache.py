"""Prepared volumes, made once and kept: in memory, or on disk as files that all processes share."""

import hashlib
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from . import transforms, volume
from .transforms import Compose, Pair, convert_files
from .volume import Volume

PARTS = ("image", "label", "affine")


class PreparedCases:
    """Cases on the working grid:

    ``cases[n]`` is image (int16 HU) and label (uint8), each prepared at its first use.

    Without ``folder`` they stay in memory, 3 bytes a voxel. With it they are written there as NumPy
    files and memory-mapped: only what is in use takes memory, and a later run finds them. An
    entry's name is a hash of the files' content, of the steps with their settings, and of the code
    of the steps, so that nothing stale is ever found; entries that no run uses any more may be
    deleted by hand. Several processes may share a folder.

    ``steps`` must give the same result each time. Errors of reading name the file.
    """

    def __init__(
        self, files: list[tuple[Path, Path]], steps: Compose, folder: str | Path | None = None
    ):
        self.files = files
        self.steps = steps
        self.folder = Path(folder) if folder else None
        self.recipe = recipe(steps)
        self.held: dict[int, Pair] = {}
        self.entries: dict[int, Path] = {}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Pair:
        if self.folder is not None:
            return self._mapped(number)
        if number not in self.held:
            self.held[number] = self._prepare(number)
        return self.held[number]

    def _prepare(self, number: int) -> Pair:
        image, label = convert_files(self.steps, *self.files[number])
        hu = np.clip(np.rint(image.array), -32768, 32767).astype(np.int16)
        return Volume(np.ascontiguousarray(hu), image.affine), Volume(
            np.ascontiguousarray(label.array), image.affine
        )

    def _mapped(self, number: int) -> Pair:
        if number not in self.entries:  # the hash is taken once a process
            self.entries[number] = self.folder / key(self.recipe, self.files[number])
        entry = self.entries[number]
        if not entry.is_dir():
            self._write(entry, number)
        image, label = (np.load(entry / f"{part}.npy", mmap_mode="r") for part in PARTS[:2])
        affine = np.load(entry / "affine.npy")
        return Volume(image, affine), Volume(label, affine)

    def _write(self, entry: Path, number: int) -> None:
        """Write an entry whole or not at all: into a folder of another name, which is then renamed."""
        image, label = self._prepare(number)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix="part-", dir=self.folder) as temporary:
                part = Path(temporary) / entry.name
                part.mkdir()
                for name, array in zip(
                    PARTS, (image.array, label.array, image.affine), strict=True
                ):
                    np.save(part / f"{name}.npy", array)
                _rename(part, entry)
        except OSError as error:
            raise OSError(
                f"{self.folder}: cannot keep the prepared {self.files[number][0].name} there: {error}; "
                "make room, or choose another data.cache_path"
            ) from error


def recipe(steps: Compose) -> str:
    """All that decides what the steps make of a file: their settings, their code, the libraries
    they call.
    """
    code = [Path(module.__file__).read_bytes() for module in (transforms, volume)] + [
        Path(__file__).read_bytes()
    ]
    settings = [(type(step).__name__, sorted(vars(step).items())) for step in steps.steps]
    libraries = [version(name) for name in ("numpy", "scipy", "nibabel")]
    return repr((settings, libraries, [hashlib.sha256(text).hexdigest() for text in code]))


def key(recipe: str, files: tuple[Path, ...]) -> str:
    """A name for the result of ``recipe`` on the content of ``files``; what the files are called
    does not matter.
    """
    digest = hashlib.sha256(recipe.encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def _rename(part: Path, entry: Path) -> None:
    try:
        part.rename(entry)
    except OSError:
        if not entry.is_dir():  # else another process was faster, with the same content
            raise
