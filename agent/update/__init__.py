"""Over-the-air updates: state machine, slots, trust and health."""
