"""A cache of prepared volumes: in memory, or on disk, where all processes share the files."""

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from .transforms import Compose, Pair, convert_files
from .volume import Volume

PACKAGE = Path(__file__).parent
#: modules of the package, or folders of them, whose code determines what a prepared volume holds; a
#: test checks that none is missing here
SOURCES = ("cache", "transforms", "volume", "files")
LIBRARIES = ("numpy", "scipy", "nibabel")  #: the libraries that this code computes with


class PreparedCases:
    """Cases on the working grid, each prepared when it is first used.

    ``cases[n]`` is a pair of image (int16, HU) and label (uint8). If ``folder`` is ``None`` they
    stay in memory, at 3 bytes per voxel. Otherwise they are written to that folder as NumPy files
    and memory-mapped: only what is in use takes memory, and later runs reuse the files. An entry's
    name is a hash of the content of the scan's files, of the steps with their settings, of the code
    of the steps, and of the versions of :data:`LIBRARIES`, so an outdated entry is never used.
    Entries that no run uses any more may be deleted by hand. Several processes may share a folder.

    ``steps`` must give the same result each time. Errors in reading a file name that file.
    """

    def __init__(
        self, files: list[tuple[Path, Path]], steps: Compose, folder: str | Path | None = None
    ) -> None:
        self.files = files
        self.steps = steps
        self.folder = Path(folder) if folder else None
        self.recipe = recipe(steps)
        self.in_memory: dict[int, Pair] = {}
        self.entries: dict[int, Path] = {}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Pair:
        if self.folder is not None:
            return self._on_disk(number, self.folder)
        if number not in self.in_memory:
            self.in_memory[number] = self._prepare(number)
        return self.in_memory[number]

    def _prepare(self, number: int) -> tuple[Volume, Volume]:
        image, label = convert_files(self.steps, *self.files[number])
        assert label is not None  # each case has its label file
        hu = np.clip(np.rint(image.array), -32768, 32767).astype(np.int16)
        return (
            Volume(np.ascontiguousarray(hu), image.affine),
            Volume(np.ascontiguousarray(label.array), image.affine),
        )

    def _on_disk(self, number: int, folder: Path) -> Pair:
        if number not in self.entries:  # each process computes the hash once
            self.entries[number] = folder / key(self.recipe, self.files[number])
        entry = self.entries[number]
        if not entry.is_dir():
            self._write(entry, number)
        image = np.load(entry / "image.npy", mmap_mode="r")
        label = np.load(entry / "label.npy", mmap_mode="r")
        affine = np.load(entry / "affine.npy")
        return Volume(image, affine), Volume(label, affine)

    def _write(self, entry: Path, number: int) -> None:
        """Write an entry completely or not at all: to a temporary folder, which is then renamed."""
        image, label = self._prepare(number)
        folder = entry.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix="part-", dir=folder) as temporary:
                part = Path(temporary) / entry.name
                part.mkdir()
                np.save(part / "image.npy", image.array)
                np.save(part / "label.npy", label.array)
                np.save(part / "affine.npy", image.affine)
                _rename(part, entry)
        except OSError as error:
            name = self.files[number][0].name
            raise OSError(
                f"{folder}: cannot write the prepared {name} there: {error}; "
                "free some space, or choose a different data.cache_path"
            ) from error


def recipe(steps: Compose) -> str:
    """All that determines the result of the steps for a file: settings, code and libraries."""
    settings = [(type(step).__name__, sorted(vars(step).items())) for step in steps.steps]
    libraries = [(name, version(name)) for name in LIBRARIES]
    code = [hashlib.sha256(path.read_bytes()).hexdigest() for path in source_files()]
    return repr((settings, libraries, code))


def source_files() -> list[Path]:
    """The files of the modules in :data:`SOURCES`."""
    files: list[Path] = []
    for name in SOURCES:
        module, folder = PACKAGE / f"{name}.py", PACKAGE / name
        files += [module] if module.is_file() else sorted(folder.glob("*.py"))
    return files


def key(recipe: str, files: Sequence[Path]) -> str:
    """A hash that names the result of ``recipe`` for the content of ``files``.

    The names of the files do not count.
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
        if not entry.is_dir():  # otherwise another process was faster, with the same content
            raise
