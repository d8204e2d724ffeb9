"""onetrunk: one vision network for all of your image domains and tasks.

The public names are listed in `__init__.pyi`. Each is imported when it is first used, so that
`import onetrunk` and the help of the command line do not import PyTorch.
"""

import sys
from types import ModuleType

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)


class _Package(ModuleType):
    """A module in which submodules do not hide functions of the same name.

    When a submodule such as `onetrunk.train` is imported, Python sets it as an attribute of its
    package. Here the public functions `onetrunk.train` and `onetrunk.report` keep their names.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
