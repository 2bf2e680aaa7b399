"""Tables of named columns: read from files, with numbers however they are written, and encoded.

A network of a run on a table predicts for a new one:

    encoder = load_encoder("runs/on_my_table")
    outputs = network(encoder.transform("new.csv"))
"""

from nfa.errors import NfaError

try:
    from nfa.inputs.tables.encoder import IDENTIFIER_SHARE, TableEncoder
    from nfa.inputs.tables.encoder_file import load_encoder
    from nfa.inputs.tables.features import Outputs
    from nfa.inputs.tables.files import ENDINGS, read_table
    from nfa.inputs.tables.numerals import SIGNS, Notation, is_like_na, is_numeral
    from nfa.inputs.tables.table import PLAIN, About, Table, as_text, is_number, missing, objects
except ModuleNotFoundError as error:  # of numpy, which PyTorch does without
    raise NfaError(f'tables need {error.name}: pip install "neural-feature-ansatz[tables]"') from None

__all__ = [
    "ENDINGS",
    "IDENTIFIER_SHARE",
    "PLAIN",
    "SIGNS",
    "About",
    "Notation",
    "Outputs",
    "Table",
    "TableEncoder",
    "as_text",
    "is_like_na",
    "is_number",
    "is_numeral",
    "load_encoder",
    "missing",
    "objects",
    "read_table",
]
