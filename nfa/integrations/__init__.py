"""Where other people's tools take what this library measures."""
