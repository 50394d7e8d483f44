"""Races: each snippet beside the library that computes the same, a module a topic."""
