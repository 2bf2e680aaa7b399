"""What becomes of one column of a table: the state of an encoder, in plain values."""

from dataclasses import dataclass

from nfa.inputs.tables.numerals import is_numeral
from nfa.inputs.tables.table import as_text


@dataclass(frozen=True)
class Numbers:
    """A column of numbers: ``(x - mean) / std``, missing ones replaced by the median before.

    Attributes:
        name: of the column.
        median: of the training values.
        mean: subtracted.
        std: divided by.
        varies: whether training values differ; if not, only the indicator is an input.
        indicator: whether a second input is 1 where the value is missing, else 0.
        written: how the numbers were written where not plainly, see `About`.
    """

    name: str
    median: float
    mean: float
    std: float
    varies: bool
    indicator: bool
    written: str = ""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the inputs made of it."""
        return (self.name,) * self.varies + (f"{self.name} missing",) * self.indicator


@dataclass(frozen=True)
class Levels:
    """A column of text: an input for every level, 1 where the text is that level; 0 for unknown text.

    Attributes:
        name: of the column.
        levels: texts among the training values, sorted; None, the last, if there are missing ones.
    """

    name: str
    levels: tuple[str | None, ...]

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the inputs made of it."""
        return tuple(
            f"{self.name} missing" if level is None else f"{self.name}={level}" for level in self.levels
        )

    @property
    def are_numbers(self) -> bool:
        """Whether all texts are numbers as `as_text` writes them: 1, where a file may say 1.0."""
        return all(x is None or (is_numeral(x) and as_text(float(x)) == x) for x in self.levels)


@dataclass(frozen=True)
class Outputs:
    """What a model that was fitted to encoded rows predicts.

    Attributes:
        name: of the target column.
        class_names: of its outputs; empty for numbers.
        mean: of numbers: a prediction is ``mean + std * output``.
        std: as said.
    """

    name: str
    class_names: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0
