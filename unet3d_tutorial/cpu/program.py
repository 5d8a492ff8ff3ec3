"""Sequences of oneDNN operations, on arrays in layouts that oneDNN chooses.

A *primitive* is an operation of oneDNN. A *program* is a list of primitives with the arrays between
them. Arrays from outside have names. Arrays that primitives pass to each other keep the layout that
oneDNN prefers, and share one buffer. A MindSpore tensor on CPU is memory with an address, so a
program reads and writes it without a copy.
"""

import unet3d_tutorial.environment  # noqa: F401

import ctypes
from ctypes import c_int, c_void_p

import mindspore as ms
from mindspore import Tensor, mint

from .onednn import DST, SRC, Library, Shape

LINE = 64  #: bytes of a cache line, and of an AVX-512 register


class Memory:
    """An array in a certain layout, which gets its address later."""

    def __init__(self, dnnl: Library, layout: c_void_p):
        self.dnnl = dnnl
        self.layout = layout
        self.bytes = round_up(dnnl.size(layout), LINE)
        self.handle = dnnl.create("memory_create", layout, dnnl.engine, None)
        self.whole = self  #: the array that owns these bytes
        self.views: list[Memory] = []

    def seen_as(self, layout: c_void_p) -> "Memory":
        """A view of the same bytes in a different layout."""
        view = Memory(self.dnnl, layout)
        view.whole = self.whole
        self.whole.views.append(view)
        return view

    def put_at(self, address: int) -> None:
        """Set the address of the array and of all its views."""
        for memory in (self, *self.views):
            self.dnnl.call("memory_set_data_handle", memory.handle, c_void_p(address))


class Argument(ctypes.Structure):
    """oneDNN's ``dnnl_exec_arg_t``."""

    _fields_ = [("index", c_int), ("memory", c_void_p)]


class Primitive:
    """An operation of oneDNN, with the arrays that it reads and writes."""

    def __init__(self, dnnl: Library, descriptor: c_void_p, memories: dict[int, Memory]):
        self.dnnl = dnnl
        self.uses = {memory.whole for memory in memories.values()}
        self.handle = dnnl.create("primitive_create", descriptor)
        self.arguments = (Argument * len(memories))()
        for argument, (index, memory) in zip(self.arguments, memories.items(), strict=True):
            argument.index = index
            argument.memory = memory.handle

    def run(self) -> None:
        """Do it once, with the addresses that the arrays have now."""
        self.dnnl.call(
            "primitive_execute", self.handle, self.dnnl.stream, len(self.arguments), self.arguments
        )


class Program:
    """A sequence of primitives, and the arrays that they need."""

    def __init__(self, dnnl: Library):
        self.dnnl = dnnl
        self.steps: list[Primitive] = []
        self.outside: dict[str, Memory] = {}  #: the caller's arrays, by name
        self.inside: list[Memory] = []  #: the program's own arrays
        self.places: dict[Memory, int] = {}  #: their offsets in the buffer, set at the first call

    def given(self, name: str, layout: c_void_p) -> Memory:
        """An array of the caller, in any layout."""
        self.outside[name] = Memory(self.dnnl, layout)
        return self.outside[name]

    def plain(self, name: str, shape: Shape) -> Memory:
        """A contiguous (row-major) array of the caller."""
        return self.given(name, self.dnnl.plain(shape))

    def own(self, layout: c_void_p) -> Memory:
        """An array of the program itself, which exists from its first use to its last."""
        self.inside.append(Memory(self.dnnl, layout))
        return self.inside[-1]

    def add(
        self,
        descriptor: c_void_p,
        reads: dict[int, Memory],
        writes: dict[int, Memory | None],
        as_it_is: dict[int, Memory] | None = None,
    ) -> dict[int, Memory]:
        """Add a primitive, and a reorder for each array whose layout differs from the required one.

        ``reads`` and ``writes`` map the number of an argument to an array; ``None`` in ``writes``
        means a new array of the program. Arrays in ``as_it_is`` are read without a reorder. Returns
        the arrays that the primitive itself writes, before any reorder.
        """
        used = {}
        for index, memory in reads.items():
            used[index] = self.read(memory, self.dnnl.layout_of(descriptor, index))
        used |= as_it_is or {}

        written = {}
        reorders = []
        for index, target in writes.items():
            layout = self.dnnl.layout_of(descriptor, index)
            if target and self.dnnl.is_same(layout, target.layout):
                written[index] = target
                continue
            written[index] = self.own(layout)
            if target:
                reorders.append(reorder(self.dnnl, written[index], target))

        self.steps.append(Primitive(self.dnnl, descriptor, used | written))
        self.steps += reorders
        return written

    def read(self, memory: Memory, layout: c_void_p) -> Memory:
        """``memory`` in ``layout``: the array itself, or a reordered copy."""
        if self.dnnl.is_same(layout, memory.layout):
            return memory
        copy = self.own(layout)
        self.steps.append(reorder(self.dnnl, memory, copy))
        return copy

    def __call__(self, **tensors: Tensor) -> None:
        """Run on contiguous tensors on CPU, one for each named array; write results into them."""
        with self.dnnl.lock:
            if not self.places:
                self.places = share_buffer(self.inside, self.steps)
            ends = [start + memory.bytes for memory, start in self.places.items()]
            # Taken from MindSpore's memory pool, which keeps its pages: new pages from the system
            # would cost more time than the reorders.
            buffer = empty_bytes(max(ends, default=0))
            address = round_up(buffer.data_ptr(), LINE)

            for memory, start in self.places.items():
                memory.put_at(address + start)
            for name, memory in self.outside.items():
                memory.put_at(tensors[name].data_ptr())
            for step in self.steps:
                step.run()
            self.dnnl.call("stream_wait", self.dnnl.stream)


def reorder(dnnl: Library, source: Memory, target: Memory) -> Primitive:
    """The primitive that copies ``source`` to ``target``, in the layout of ``target``."""
    descriptor = dnnl.create(
        "reorder_primitive_desc_create",
        source.layout,
        dnnl.engine,
        target.layout,
        dnnl.engine,
        None,
    )
    return Primitive(dnnl, descriptor, {SRC: source, DST: target})


# ------------------------------------------------------------------------------------------- memory


def share_buffer(memories: list[Memory], steps: list[Primitive]) -> dict[Memory, int]:
    """The offset of each array in a shared buffer, in bytes.

    Arrays that are not needed at the same time may overlap. The largest arrays are placed first,
    each at the lowest offset where it fits: "greedy by size" of arXiv:2001.03288.
    """
    lives = lifetimes(steps)
    places: dict[Memory, int] = {}
    for memory in sorted(memories, key=lambda memory: memory.bytes, reverse=True):
        first, last = lives[memory]
        taken = []
        for other, start in places.items():
            other_first, other_last = lives[other]
            if other_first <= last and first <= other_last:
                taken.append((start, start + other.bytes))
        places[memory] = lowest_gap(sorted(taken), memory.bytes)
    return places


def lifetimes(steps: list[Primitive]) -> dict[Memory, tuple[int, int]]:
    """The first and the last step that use each array."""
    lives: dict[Memory, tuple[int, int]] = {}
    for number, step in enumerate(steps):
        for memory in step.uses:
            first, _ = lives.get(memory, (number, number))
            lives[memory] = first, number
    return lives


def lowest_gap(taken: list[tuple[int, int]], size: int) -> int:
    """The lowest offset for ``size`` bytes outside ``taken``, intervals sorted by their start.

    >>> lowest_gap([(0, 64), (128, 192)], 64)
    64
    """
    place = 0
    for start, stop in taken:
        if place + size <= start:
            break
        place = max(place, stop)
    return place


def round_up(number: int, multiple: int) -> int:
    """Round ``number`` up to a multiple of ``multiple``.

    >>> round_up(65, 64)
    128
    """
    return -(-number // multiple) * multiple


def empty(shape: Shape) -> Tensor:
    """A float32 tensor with uninitialised values."""
    return mint.empty(shape, dtype=ms.float32)


def empty_bytes(size: int) -> Tensor:
    """Memory for ``size`` bytes, with extra room to align them to a cache line."""
    return mint.empty(size + LINE, dtype=ms.uint8)
