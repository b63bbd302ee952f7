"""Rooms, noises and microphones that training adds to clean sound; needs numpy only."""
