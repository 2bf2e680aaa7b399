"""Kernels by name, where one of one's own is entered: nothing that a machine would misread gets in."""

from collections import UserDict
from collections.abc import Container, Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

from nfa.checks import told
from nfa.errors import NfaError

if TYPE_CHECKING:
    from nfa.kernels.profiles import RadialKernel


class KernelRegistry(UserDict[str, "type[RadialKernel]"]):
    """Classes of radial kernels by their names, in small letters.

    Machines take their own options and those of their kernel in one call. An option that both have would go
    to the machine and leave the kernel with its default, without a word; so would a name that a machine has
    for a kernel of another kind. Machines reserve both, and such kernels are refused.

    Raises:
        NfaError: a name that is not in small letters or taken, a kernel that is no class of `RadialKernel`,
            an option that is called like one of a machine.
    """

    def __init__(self, of: type, kernels: dict[str, "type[RadialKernel]"]):
        self._of = of
        self._names: frozenset[str] = frozenset()
        self._options: dict[str, str] = {}  # the name of an option to that of its machine
        super().__init__(kernels)

    def __setitem__(self, name: str, kernel: "type[RadialKernel]") -> None:
        """Enter a kernel."""
        if not isinstance(name, str) or name != name.lower():
            raise NfaError(f"a kernel is entered under a name in small letters, got {told(name)}")
        if not (isinstance(kernel, type) and issubclass(kernel, self._of)):
            expected = f"a subclass of {self._of.__name__}"
            raise NfaError(f"the kernel {name!r} must be {expected}, got {told(kernel)}")
        _check(name, kernel, self._options, self._names)
        super().__setitem__(name, kernel)

    def options_of(self, name: str) -> tuple[str, ...]:
        """Names of the options of a kernel, beside the bandwidth."""
        return _options(self[name])

    def reserve(self, machine: str, options: Iterable[str], names: Iterable[str] = ()) -> None:
        """Keep the options of a machine, and its names for kernels of another kind, from those to come.

        Raises:
            NfaError: a kernel that is entered has one of them.
        """
        owners, taken = {**dict.fromkeys(options, machine), **self._options}, self._names | set(names)
        for name, kernel in self.items():
            _check(name, kernel, owners, taken)
        self._options, self._names = owners, taken


def _check(name: str, kernel: "type[RadialKernel]", owners: Mapping[str, str], taken: Container[str]) -> None:
    if name in taken:
        raise NfaError(f"{name!r} is the name of another kernel, of an inner product: choose another name")
    for option in _options(kernel):
        if option in owners:
            raise NfaError(
                f"the kernel {name!r} has an option {option!r}, which the machine {owners[option]} has too "
                "and would take: call it otherwise"
            )


def _options(kernel: "type[RadialKernel]") -> tuple[str, ...]:
    return tuple(field.name for field in fields(kernel) if field.name != "bandwidth")
