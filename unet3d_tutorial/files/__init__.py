"""Scans and masks as files, read with limits and written whole or not at all.

Each format has a module: ``nifti``, ``metaimage``, ``nrrd`` and ``dicom``. SimpleITK reads the last
two, with what ``itk`` adds. ``scans`` chooses among the formats and checks that a file holds a CT.

The other modules are tools for every room: ``whole`` writes files whole, ``lock`` lets one process
in at a time, ``pool`` does the same work in many processes, ``tables`` shows results.
"""
