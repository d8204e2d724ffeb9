"""The conformance suite: checks of methods, built in or a user's.

    from onetrunk.testing import check_adapter, check_norm
    check_norm("mypackage.norms:thing")
    check_adapter("mypackage.adapters:thing")

Each function runs all checks that apply and raises AssertionError for the first that fails.

| function | method |
|---|---|
| `check_norm` | a norm, by its name |
| `check_adapter` | an adapter, by its name |
| `check_trunk` | a trunk with its norm and adapters |
| `check_weighting` | a loss weighting, by its name |
| `check_feature_loss` | a feature loss of distillation |
| `check_source` | a source, by a function that opens it |
| `check_sampler` | a sampler, by its name |
"""

from onetrunk.testing.feature_losses import check_feature_loss as check_feature_loss
from onetrunk.testing.models import check_adapter as check_adapter
from onetrunk.testing.models import check_norm as check_norm
from onetrunk.testing.models import check_trunk as check_trunk
from onetrunk.testing.samplers import check_sampler as check_sampler
from onetrunk.testing.sources import check_source as check_source
from onetrunk.testing.weightings import check_weighting as check_weighting
