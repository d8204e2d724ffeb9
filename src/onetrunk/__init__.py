"""onetrunk: one vision network for all of your image domains and tasks.

The public names are listed in `__init__.pyi`. Each is imported when it is first used, so that
`import onetrunk` and the help of the command line do not wait for PyTorch.
"""

import sys
from types import ModuleType

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)


class _Package(ModuleType):
    """Keeps the functions `onetrunk.train` and `onetrunk.report` from being hidden.

    Python sets a package's attribute to each of its submodules that is imported, and there are
    submodules of these names.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
