"""Code that readers copy: one module a topic."""
