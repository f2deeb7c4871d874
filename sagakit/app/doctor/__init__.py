"""Does this broker keep the promises that sagakit stands on? Asked of the broker itself, on topics made for it."""
