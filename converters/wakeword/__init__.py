"""Wake words from their spelling: synthesised speech, a network that streams, an honest report."""
