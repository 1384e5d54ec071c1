"""The report of runs: one HTML file, and the same figures as JSON and CSV."""

from common.report.export import write_tables
from common.report.page import write_report
from common.report.records import RunRecord, read_record

__all__ = ["RunRecord", "read_record", "write_report", "write_tables"]
