"""Scans and masks as files: read with checks, written completely or not at all.

Each format has a module: ``nifti``, ``metaimage``, ``nrrd`` and ``dicom``. The last two use
SimpleITK, through ``itk``. ``scans`` chooses among the formats and checks that a file holds a CT.

The other modules are tools for the whole package: ``whole`` writes complete files, ``lock`` lets
one process in at a time, ``pool`` runs one function in many processes, and ``tables`` shows
results. ``checked_settings``, ``yaml_settings`` and ``wording`` serve the configuration.
"""
