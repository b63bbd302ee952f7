"""Cascades: where a cheaper operating point may answer for a better one."""
