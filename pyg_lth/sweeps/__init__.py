"""Many runs: a grid of them, the seeds of one, and the processes that they run in."""
