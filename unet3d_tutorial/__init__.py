"""A 3D U-Net for chest CT in MindSpore: the package behind the book."""
