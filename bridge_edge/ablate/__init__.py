"""`bridge-edge ablate`: named comparisons of arms of one recipe over seeds."""
