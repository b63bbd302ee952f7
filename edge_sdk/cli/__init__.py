"""The ``edge`` command: one module per noun, imported only when it is used."""
