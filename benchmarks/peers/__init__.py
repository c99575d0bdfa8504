"""The peers, each started with ``python -m`` by the interpreter of its environment."""
