"""The main job, end to end, on one machine: what ``edge demo`` runs.

Everything is done by the commands a person would type, in processes of their own; this package
only starts them, watches the fleet over MQTT and tells what happened.
"""
