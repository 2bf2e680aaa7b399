"""The pair (W, C) of one linear map, and every number, row, word and picture made of it.

`pair` is where C becomes numbers, by the algebra of `forms`, `blockwise`, `nulls` and `precision`;
`gather_rows` collects these into the rows of a `report`, which `words` and `pictures` show.
"""
