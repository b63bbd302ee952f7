"""The ``edge-agent`` command."""
