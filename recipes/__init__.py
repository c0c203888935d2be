"""Domains by name: a folder each with `recipe.yaml` and `task.py`; installed as `bridge_edge.recipes`."""
