"""The saga engine as pure functions: no I/O, no clock, no randomness, standard library only.

Start reading at `decide` (what an event does to a saga), then `evolve` (what a transition does to its state).
"""
