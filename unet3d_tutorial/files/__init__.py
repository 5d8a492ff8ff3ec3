"""Scans and masks as files:

NIfTI, MetaImage, NRRD and DICOM, read with limits and written whole or not at all.
"""
