"""Synthetic chest CTs with exact labels, painted organ by organ.

:func:`.recipe.generate` is where to begin: it is the order in which a phantom is painted, one line
an organ. The files behind it, from the patient to the picture:

- ``patient``, ``field_of_view``: who lies in the scanner, and what part of the patient it sees;
- ``canvas``, ``shapes``, ``tissues``: the grid of HU and labels, the shapes painted on it, and HU;
- ``body``, ``abdomen``, ``chest``, ``lungs``, ``airway``, ``mediastinum``, ``vessels``,
  ``skeleton``: the anatomy;
- ``disease``: what a sick lung looks like;
- ``scanner``: the couch, and the marks that the machine leaves in the picture.

All of them share one frame: millimetres from the carina, where the trachea divides, with x towards
the patient's left, y towards the back and z towards the head (LPS, the convention of LUNA16's
files).

To add an organ, write one function in the file of its region, and call it in
:func:`.recipe.generate` where it belongs: what is painted later covers what was painted before::

    def paint_kidneys(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
        '''Paint two kidneys, on both sides of the spine, 120 mm below the lower dome.'''
        for side in (-1, 1):
            centre = [side * 60, 50, patient.domes.min() - 120]
            radii = rng.uniform([20, 20, 45], [30, 30, 60])
            canvas.ellipsoid(centre, radii, rng.uniform(*KIDNEY_HU))

Whatever may cover a lung and is none passes ``BACKGROUND`` as its label. A measure that several
organs need is a field of :class:`.patient.Patient`. A disease is a function in ``disease``, called
in :func:`.disease.paint_diseases`; another field of view is drawn in
:meth:`.field_of_view.FieldOfView.draw`. All draw from the same random stream, so with a new draw
every phantom that is made after it changes, whatever its seed: data sets must be made again.
"""

from .recipe import generate, write_luna16

__all__ = ["generate", "write_luna16"]
