"""Predictions -> figures with intervals, and the record that everybody reads."""
