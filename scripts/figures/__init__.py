"""Drawings: one module a topic, one `@figure` function a figure."""
