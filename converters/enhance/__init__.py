"""Speech enhancement: a causal network, what it learns from, and how it learns."""
