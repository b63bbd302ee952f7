"""Policies of delivery, pure: which way chunks take, in which pieces, how fast and when."""
