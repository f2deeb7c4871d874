"""The engine under a virtual clock: simulation, exploration, replay of histories."""
