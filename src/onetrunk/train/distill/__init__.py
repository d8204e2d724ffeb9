"""Distillation: one network from specialists, through small aligners that are thrown away."""
