"""One script a claim; `benchmarks/README.md` holds what they measured."""
