"""One self-contained HTML page for a run, or for several side by side; nothing in it asks the network for anything."""
