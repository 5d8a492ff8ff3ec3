"""The part of oneDNN's C interface that this package needs, called with ``ctypes``.

The library comes from the package ``onednn-cpu-gomp``. See oneDNN's developer guide,
https://uxlfoundation.github.io/oneDNN, and its header ``dnnl_types.h`` for the numbers below.
"""

import ctypes
import os
import threading
from collections.abc import Sequence
from ctypes import byref, c_int64, c_size_t, c_void_p
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = "onednn-cpu-gomp"
FILE = "libdnnl.so.3"
Shape = tuple[int, ...]

# Engine and stream.
CPU = 1
IN_ORDER = 1

# Number types and memory formats.
FLOAT32 = 3
ANY = 1  #: the format that a primitive prefers
BLOCKED = 121  #: ``aBcde16b``: 16 channels next to each other

# Propagation kinds and algorithms of primitives.
TRAINING = 64
INFERENCE = 96
BACKWARD = 128
DIRECT = 1
TRANSPOSED_DIRECT = 0xA
ADD = 0x1FFF0
MULTIPLY = 0x1FFF1

# Arguments of a primitive.
SRC = 1
SECOND_SRC = 2
DST = 17
WEIGHTS = 33
MEAN = 49
VARIANCE = 50
SCALE = 51
SHIFT = 52
DIFF_SRC = 129
DIFF_DST = 145
DIFF_WEIGHTS = 161
DIFF_SCALE = 255
DIFF_SHIFT = 256
SEVERAL_SRC = 1024
POST_OP = 32768

# Queries, flags and masks.
LAYOUT_OF_ARGUMENT = 255
GIVEN_STATISTICS = 1
WITH_SCALE = 2
WITH_SHIFT = 4
EACH_CHANNEL = 2


class Library:
    """oneDNN, loaded from ``path``, with all kernels that the processor supports.

    Raises ``OSError`` if it cannot be loaded.
    """

    def __init__(self, path: Path):
        self.functions = ctypes.CDLL(str(path))
        self.functions.dnnl_primitive_desc_query_md.restype = c_void_p
        self.functions.dnnl_memory_desc_get_size.restype = c_size_t
        self.process = os.getpid()
        self.lock = threading.Lock()
        # All kernels: ONEDNN_MAX_CPU_ISA is meant for MindSpore's copy.
        self.call("set_max_cpu_isa", 0)
        self.engine = c_void_p()
        self.stream = c_void_p()
        self.call("engine_create", byref(self.engine), CPU, c_size_t(0))
        self.call("stream_create", byref(self.stream), self.engine, IN_ORDER)

    def call(self, name: str, *arguments: Any) -> None:
        """Call ``dnnl_name``. Raises ``RuntimeError`` with the status unless it succeeds."""
        status = getattr(self.functions, f"dnnl_{name}")(*arguments)
        if status:
            raise RuntimeError(f"oneDNN: expected status 0 from {name}, found {status}")

    def create(self, name: str, *arguments: Any) -> c_void_p:
        """Call ``dnnl_name``, whose first argument receives the object; return that object."""
        created = c_void_p()
        self.call(name, byref(created), *arguments)
        return created

    def describe(self, primitive: str, *arguments: Any) -> c_void_p:
        """The descriptor of a primitive on this engine: its kernel and its layouts."""
        return self.create(f"{primitive}_primitive_desc_create", self.engine, *arguments)

    def plain(self, shape: Shape) -> c_void_p:
        """The layout of a contiguous float32 array (row-major)."""
        return self.strided(shape, strides_of(shape))

    def strided(self, shape: Shape, strides: Sequence[int]) -> c_void_p:
        """The layout of a float32 array whose neighbours along an axis are ``strides`` apart."""
        return self.create(
            "memory_desc_create_with_strides", len(shape), int64s(shape), FLOAT32, int64s(strides)
        )

    def layout(self, shape: Shape, tag: int = ANY) -> c_void_p:
        """The layout of a float32 array in the format ``tag``; with ``ANY``, oneDNN chooses."""
        return self.create("memory_desc_create_with_tag", len(shape), int64s(shape), FLOAT32, tag)

    def box(self, layout: c_void_p, shape: Shape, start: Shape) -> c_void_p:
        """The layout of a box within an array: ``shape`` voxels from index ``start``."""
        return self.create("memory_desc_create_submemory", layout, int64s(shape), int64s(start))

    def is_same(self, a: c_void_p, b: c_void_p) -> bool:
        """Whether two layouts are equal."""
        return bool(self.functions.dnnl_memory_desc_equal(a, b))

    def layout_of(self, descriptor: c_void_p, argument: int) -> c_void_p:
        """The layout in which a primitive reads or writes an argument."""
        query = self.functions.dnnl_primitive_desc_query_md
        return c_void_p(query(descriptor, LAYOUT_OF_ARGUMENT, argument))

    def size(self, layout: c_void_p) -> int:
        """Size in bytes of an array in a layout."""
        return self.functions.dnnl_memory_desc_get_size(layout)


def strides_of(shape: Shape) -> list[int]:
    """Strides of a contiguous (row-major) array of this shape, in entries.

    >>> strides_of((2, 3, 4))
    [12, 4, 1]
    """
    return np.cumprod([1, *shape[:0:-1]])[::-1].tolist()


def int64s(values: Sequence[int]) -> ctypes.Array:
    """A C array of 64-bit integers."""
    return (c_int64 * len(values))(*values)


@cache
def load_library() -> Library | None:
    """The library of :data:`PACKAGE`, or ``None`` where it is not installed or does not load."""
    try:
        for file in metadata.files(PACKAGE) or ():
            if file.name == FILE:
                return Library(Path(str(file.locate())))
    except (metadata.PackageNotFoundError, OSError):
        pass
    return None


def library() -> Library:
    """The library that :func:`load_library` finds; ``RuntimeError`` if there is none."""
    loaded = load_library()
    if loaded is None:
        raise RuntimeError(f"oneDNN: expected the package {PACKAGE}, found none that loads")
    return loaded
