"""Talks to Label Studio: pushes tasks, pulls ratings and masks."""
