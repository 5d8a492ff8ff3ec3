"""Synthetic chest CTs with exact labels, painted organ by organ.

Start with :func:`.recipe.generate`: it shows the order in which a phantom is painted, one line for
each organ. The modules that it uses, from the patient to the image:

- ``patient``, ``field_of_view``: the patient's measures, and the part that the scanner sees;
- ``canvas``, ``shapes``, ``tissues``: the grid of HU and labels, the shapes painted on it, and HU;
- ``body``, ``abdomen``, ``chest``, ``lungs``, ``airway``, ``mediastinum``, ``vessels``,
  ``skeleton``: the anatomy;
- ``disease``: diseases of the lungs;
- ``scanner``: the couch, and the artefacts of the scanner.

All of them share one frame: millimetres from the carina, where the trachea divides, with x towards
the patient's left, y towards the back and z towards the head (LPS, the convention of LUNA16's
files).

To add an organ, write one function in the module of its region, and call it at the right place in
:func:`.recipe.generate`: what is painted later covers what was painted before::

    def paint_kidneys(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
        '''Paint two kidneys, on both sides of the spine, 120 mm below the lower dome.'''
        for side in (-1, 1):
            centre = [side * 60, 50, patient.domes.min() - 120]
            radii = rng.uniform([20, 20, 45], [30, 30, 60])
            canvas.ellipsoid(centre, radii, rng.uniform(*KIDNEY_HU))

An organ that may cover a lung, but is not lung, passes ``BACKGROUND`` as its label. A measure that
several organs need is a field of :class:`.patient.Patient`. A disease is a function in ``disease``,
called in :func:`.disease.paint_diseases`. Change the field of view in
:meth:`.field_of_view.FieldOfView.draw`. All functions share one random generator, so an additional
draw changes every phantom, for any seed: data sets must be made again.
"""

from .recipe import generate, write_luna16

__all__ = ["generate", "write_luna16"]
