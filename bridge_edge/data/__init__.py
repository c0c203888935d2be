"""Samples, task cards, reading files, splits and their gates."""
