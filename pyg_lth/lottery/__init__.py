"""The round loop, and the methods that it runs."""
