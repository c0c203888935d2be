"""The verbs of the command line, by theme. Each translates words into one call and prints what comes back."""
