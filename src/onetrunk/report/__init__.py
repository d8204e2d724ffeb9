"""The report: one self-contained page that answers "one network or N?"."""
