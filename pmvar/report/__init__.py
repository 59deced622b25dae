"""A run made readable: report.html for people, and one account's margin explained in plain text."""
