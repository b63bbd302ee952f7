"""Microphones and what stands in for one: from a device to a ring that several may listen to."""
