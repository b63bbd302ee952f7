"""Wire contracts: plain data, shared by host, server and device.

Compatibility rule: every top-level document carries ``schema``, a single integer. Adding an
optional field keeps the number, and readers ignore fields they do not know. Removing a field or
changing its meaning raises the number, and a reader refuses a number above its own with a hint to
update. Configuration files are stricter: an unknown key is an error with a suggestion.
"""
