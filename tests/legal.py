"""The legal recipe as tests take it: in one round of asking, whatever the shipped recipe has."""

LEGAL = ("recipe=legal", "select.rounds=1")
