"""bridge-edge: distil an expensive black-box teacher into a sub-1B model that runs offline."""

__version__ = "0.1.0"
