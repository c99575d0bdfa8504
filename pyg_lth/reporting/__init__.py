"""Runs compared, as tables, figures and a page."""
