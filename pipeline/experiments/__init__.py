"""What is measured rather than used: checks on a GPU, test beds, benchmarks."""
