"""The steps of the dataset builder, one file each; see :mod:`studio.datasets.step`."""
