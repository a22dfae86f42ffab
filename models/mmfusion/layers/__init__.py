"""Building blocks that the published systems share."""
