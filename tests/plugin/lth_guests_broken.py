"""Fails to be imported, as a plugin does whose own dependencies are gone."""

import a_module_that_nobody_has  # noqa: F401
