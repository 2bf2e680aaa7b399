"""Tables of named columns: read from files, with numbers however they are written."""

from nfa.inputs.tables.files import ENDINGS, read_table
from nfa.inputs.tables.numerals import SIGNS, Notation, is_like_na, is_numeral
from nfa.inputs.tables.table import PLAIN, About, Table, as_text, is_number, missing, objects

__all__ = [
    "ENDINGS",
    "PLAIN",
    "SIGNS",
    "About",
    "Notation",
    "Table",
    "as_text",
    "is_like_na",
    "is_number",
    "is_numeral",
    "missing",
    "objects",
    "read_table",
]
