"""Talking to a fleet server."""
