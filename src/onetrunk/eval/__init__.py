"""Evaluation: metrics, tables, intervals, summaries, latency and analyses of a model."""
