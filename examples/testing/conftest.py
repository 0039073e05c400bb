"""All that the tests in this folder need of Kvasir."""

pytest_plugins = ["kvasir.testing"]
