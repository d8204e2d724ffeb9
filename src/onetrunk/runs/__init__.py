"""Runs: train them, open them, add, update and remove domains, compare methods and settings."""
