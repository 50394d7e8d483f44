"""Measurements: one module a topic, one `@experiment` function a result."""
