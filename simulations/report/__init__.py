"""The report of runs: one HTML file, and the same figures as JSON and CSV."""

from simulations.report.export import write_tables
from simulations.report.page import write_report
from simulations.report.records import RunRecord, read_record

__all__ = ["RunRecord", "read_record", "write_report", "write_tables"]
