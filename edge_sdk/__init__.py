"""edge-sdk: from a PyTorch model to a fleet of small devices."""

__version__ = "0.1.0"
