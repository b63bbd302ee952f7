"""Releases: content-addressed blobs, chunks and signed manifests."""
