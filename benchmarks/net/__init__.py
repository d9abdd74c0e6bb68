"""Parts of `benchmarks.network`: light clients, a coordinator to measure, a poor line."""
