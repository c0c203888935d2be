"""The finance domain: ratios of a company statement; see `task.py`."""
