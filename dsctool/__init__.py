"""Cascade instance segmentation for crowded, overlapping things."""
