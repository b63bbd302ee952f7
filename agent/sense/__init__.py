"""Sensors: processor, memory and heat."""
