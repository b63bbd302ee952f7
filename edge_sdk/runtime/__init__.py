"""Inference runtimes behind one protocol, chosen by negotiation."""
