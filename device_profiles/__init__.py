"""Device profiles: what a board can do, and how fast it is expected to do it."""
