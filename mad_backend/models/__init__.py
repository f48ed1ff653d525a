"""Segmentation models of any origin behind one interface."""
