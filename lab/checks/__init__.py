"""All options of a run are looked into before anything of it is built."""
