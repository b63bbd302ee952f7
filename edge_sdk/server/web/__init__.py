"""The server's pages: templates, the style sheet, and vendored scripts (unmodified)."""
