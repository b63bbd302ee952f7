"""Names that other parts know without loading cryptography."""

FOLDER = "broker"
"""Where the authority lies in a fleet server's data folder."""
SERVER = "_server"
"""The fleet server's name at the broker; no device can be called so."""
