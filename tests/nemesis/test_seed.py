"""The examples of the KV_SET documentation, word for word."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.nemesis import Client, client, local

DOCUMENTED_TOKEN = "3442644399356403325"

ONE_KEY = """{
  "KV_SET":
  {
    "tkn":"3442644399356403325",
    "keys":
    {
      "user":
      {
        "username":"Potato",
        "email":"spud@email.com",
        "avatar":"path/to/img.png"
      }
    }
  }
}
"""
ONE_KEY_ANSWER = """{
  "KV_SET_RSP":
  {
    "tkn": "3442644399356403325",
    "keys":
    {
      "user": 20
    }
  }
}
"""
MANY_KEYS = """{
  "KV_SET":
  {
    "tkn":"3442644399356403325",
    "keys":
    {
      "stats":
      {
        "visits":45642,
        "averageSession":300
      },
      "ui":
      {
        "theme":"dark",
        "layout":"stacked"
      }
    }
  }
}
"""
MANY_KEYS_ANSWER = """{
  "KV_SET_RSP": {
    "tkn": "3442644399356403325",
    "keys": {
      "stats": 20,
      "ui": 20
    }
  }
}
"""


@pytest.fixture
def caller() -> Iterator[Client]:
    with local() as server, client(server.url) as connected:
        yield connected


def ask(caller: Client, token: str, example: str) -> object:
    """The reply to a documented example, sent and told with the documented token in place of the session's own."""
    reply = caller.ask(example.replace(DOCUMENTED_TOKEN, token))
    # Not by text: a token is a random number, and a short one occurs in other places of the reply.
    assert reply["KV_SET_RSP"].pop("tkn") == token
    reply["KV_SET_RSP"]["tkn"] = DOCUMENTED_TOKEN
    return reply


def test_store_one_key(caller: Client) -> None:
    token = caller.session()
    assert ask(caller, token, ONE_KEY) == json.loads(ONE_KEY_ANSWER)
    replaced = json.loads(ONE_KEY_ANSWER.replace("20", "21"))
    assert ask(caller, token, ONE_KEY) == replaced


def test_store_multiple_keys(caller: Client) -> None:
    token = caller.session()
    assert ask(caller, token, MANY_KEYS) == json.loads(MANY_KEYS_ANSWER)
    assert caller.do("KV_GET", tkn=token, keys=["stats"])["keys"] == {"stats": {"visits": 45642, "averageSession": 300}}


@pytest.mark.parametrize(
    "keys",
    [
        {"forename": "James", "surname": "Bond", "email": "jb@mi5.com"},
        {"profile": {"forename": "James", "surname": "Bond", "email": "jb@mi5.com"}},
    ],
)
def test_examples_within_the_text(caller: Client, keys: dict[str, object]) -> None:
    token = caller.session()
    assert caller.do("KV_SET", tkn=token, keys=keys) == {"tkn": token, "keys": dict.fromkeys(keys, 20)}
    assert caller.do("KV_GET", tkn=token, keys=list(keys)) == {"tkn": token, "keys": keys}
