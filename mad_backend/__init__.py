"""Finds the failures of a segmentation model and serves its promoted version."""
