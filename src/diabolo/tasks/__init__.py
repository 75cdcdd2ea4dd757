"""Jobs: one meta-estimator each, working with every model. Importing this package registers every one of them."""

import importlib
import pkgutil

for _job in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_job.name}")
