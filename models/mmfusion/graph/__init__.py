"""Camera to topic: what happens to pixels inside the one compiled graph."""
