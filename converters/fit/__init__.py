"""Sizing: the operating points of a model that fit a device and the user's budgets."""
