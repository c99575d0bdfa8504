"""Full ranking, its metrics, and what can be said of their differences."""
