"""The page of a run (`spanets report`): what it measured, its pictures, and how it was made."""

from spanets.report.page import Report, write_report

__all__ = ["Report", "write_report"]
