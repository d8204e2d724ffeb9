"""Formats that several sources read: folders, tables, tars, annotations, targets and labels."""
