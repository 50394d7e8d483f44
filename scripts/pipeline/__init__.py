"""The build: from snippets, experiments and tests to verified pages."""
