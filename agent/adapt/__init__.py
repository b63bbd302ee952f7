"""The governor: where on the ladder to run."""
