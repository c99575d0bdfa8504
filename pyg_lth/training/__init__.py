"""One (θ₀, mask) to convergence."""
