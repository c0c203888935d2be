"""The medical domain: clinical formulas and scores; see `task.py`."""
