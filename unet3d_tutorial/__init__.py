"""A 3D U-Net for chest CT in MindSpore: the package behind the book.

``import unet3d_tutorial as u3`` offers the names that people use most; ``__init__.pyi`` lists them.
Each is loaded when it is first used, so that the import costs next to nothing and changes nothing
in the program around it. MindSpore comes with the first name that needs it.

The modules at this level, and ``transforms``, are the chapters of the book. What no chapter teaches
is in the rooms behind them: ``files``, ``luna16``, ``phantom``, ``runs``, ``predict``, ``view``,
``cpu``, ``book``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
