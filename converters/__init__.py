"""Host-side converters: a PyTorch task becomes verified, quantized artifacts."""
