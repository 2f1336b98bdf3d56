"""The report: results in, one page out."""
