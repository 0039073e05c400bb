"""Runs Django's own tests of its cache API on our backend: `python run.py DIRECTORY`, which has tests/cache of its source.

The server is in KVASIR_URL, KVASIR_KEY and KVASIR_STORE. Prints how many tests ran and how many were left out, as JSON.
"""

from __future__ import annotations

import json
import sys
import unittest

import django
from django.conf import settings
from django.test import TestCase, override_settings
from django.test.utils import get_runner

#: Tests that are left out: they are about values that only pickle can express, and ours are JSON.
LEFT_OUT = (
    "test_add_fail_on_pickleerror",
    "test_binary_string",
    "test_cache_read_for_model_instance",
    "test_cache_read_for_model_instance_with_deferred",
    "test_cache_write_for_model_instance_with_deferred",
    "test_cache_write_unpicklable_object",
    "test_data_types",  # functions, classes and tuples; the others are in our own tests
    "test_set_fail_on_pickleerror",
)


def main() -> int:
    sys.path.insert(0, sys.argv[1])
    settings.configure(
        CACHES={"default": {"BACKEND": "kvasir_client.django.KvasirCache"}},
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=["cache"],
        USE_TZ=False,
        ROOT_URLCONF="",
    )
    django.setup()
    from cache import tests

    #: There is no culling: an entry lives until its end.
    without = {"cull", "zero_cull"}

    @override_settings(
        CACHES=tests.caches_setting_for_tests(base={"BACKEND": "kvasir_client.django.KvasirCache"}, exclude=without)
    )
    class KvasirCacheTests(tests.BaseCacheTests, TestCase):
        pass

    for name in LEFT_OUT:
        assert hasattr(tests.BaseCacheTests, name), name
        setattr(KvasirCacheTests, name, None)
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(KvasirCacheTests)
    runner = get_runner(settings)(verbosity=0, interactive=False)
    runner.setup_test_environment()
    databases = runner.setup_databases()
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    runner.teardown_databases(databases)
    print(json.dumps({"ran": result.testsRun, "skipped": [f"{test}: {why}" for test, why in result.skipped]}))
    return not result.wasSuccessful()


if __name__ == "__main__":
    sys.exit(main())
