"""Synthetic chest CTs with exact labels, painted organ by organ.

:func:`.recipe.generate` is where to begin: it is the order in which a phantom is painted, one line
an organ. The files behind it, from the patient to the picture:

- ``patient``, ``field_of_view``: who lies in the scanner, and how much of him it sees;
- ``canvas``, ``shapes``, ``tissues``: the grid of HU and labels, the shapes painted on it, and HU;
- ``body``, ``abdomen``, ``chest``, ``lungs``, ``airway``, ``mediastinum``, ``vessels``,
  ``skeleton``: the anatomy;
- ``disease``: what a sick lung looks like;
- ``scanner``: the couch, and the marks that the machine leaves in the picture.

All of them share one frame: millimetres from the carina, where the trachea divides, with x towards
the patient's left, y towards the back and z towards the head (LPS, the convention of LUNA16's
files).

To add an organ, write one function ``paint_ORGAN(canvas, patient, rng)`` in the file of its region
and call it in :func:`.recipe.generate` where it belongs: what is painted later covers what was
painted before. Say in its docstring what is painted and where, and pass ``BACKGROUND`` as the label
if it may cover a lung. A measure that several organs need is a field of
:class:`~.patient.Patient`. The organ draws from the same random stream as all others, so every
phantom changes with it, whatever the seed: data sets must be made again.
"""

from .recipe import generate, write_luna16

__all__ = ["generate", "write_luna16"]
