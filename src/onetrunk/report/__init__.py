"""The report: one self-contained HTML page on whether one network is enough."""
