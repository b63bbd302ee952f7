"""Speech enhancement: a causal network over time and frequency, what it learns from, and its loss."""
