"""What a search leaves: its report, in data and in words, and the run folder."""
