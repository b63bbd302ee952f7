"""Networks of several widths: a narrower one is a smaller network, not a masked one."""
