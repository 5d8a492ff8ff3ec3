"""A 3D U-Net for chest CT in MindSpore: the package behind the book.

``import unet3d_tutorial as u3`` offers the names that people use most; ``__init__.pyi`` lists them.
Each is loaded when it is first used, so the import itself is fast and has no side effects.
MindSpore is imported together with the first name that needs it.

The modules at this level, and ``transforms``, are what the chapters of the book teach. Supporting
code is in subpackages, which the book calls rooms: ``files``, ``luna16``, ``phantom``, ``runs``,
``predict``, ``view``, ``cpu``, ``book``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
