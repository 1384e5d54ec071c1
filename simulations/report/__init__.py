"""The report of a study: one HTML file, Markdown, and the same figures as JSON and CSV."""
