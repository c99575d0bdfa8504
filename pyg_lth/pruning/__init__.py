"""Masks over a table, what scores its entries, and the exact selection of those that live."""
