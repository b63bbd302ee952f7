"""What is done with frames."""
