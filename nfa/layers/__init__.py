"""Which weights of a network are linear maps, what they are called, and how much of it they cover."""
