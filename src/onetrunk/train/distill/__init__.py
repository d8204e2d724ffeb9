"""Distillation: one network from frozen teachers, through aligners that are then discarded."""
