"""Engines, each against the same promises."""

import pytest

pytest.register_assert_rewrite("tests.engine.lab")
