"""The pair (W, C) of one linear map, and every number, row, word and picture made of it."""
