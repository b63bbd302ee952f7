"""The report beside the artifacts: one self-contained HTML page, readable in a minute."""

from converters.report.page import write_report

__all__ = ["write_report"]
