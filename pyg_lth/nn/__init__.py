"""Backbones, and the sparse product that propagates their tables."""
