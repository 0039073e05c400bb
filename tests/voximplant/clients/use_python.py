"""Runs in the official client's own environment: JSON calls on standard input, JSON outcomes on standard output."""

import json
import sys

from voximplant.apiclient import (
    VoximplantAPI,
    VoximplantAPIConfig,
    VoximplantException,
)

program = json.load(sys.stdin)
if program["readme"]:
    # As the README says; it sends the account id 0.
    config = VoximplantAPIConfig(credentials_file_path=program["credentials"], endpoint=program["endpoint"])
    api = VoximplantAPI(config=config)
else:
    api = VoximplantAPI(program["credentials"], endpoint=program["endpoint"])

outcomes = []
for method, arguments in program["calls"]:
    try:
        outcomes.append({"returned": getattr(api, method)(*arguments)})
    except VoximplantException as error:
        outcomes.append({"raised": [error.message, error.code]})
json.dump(outcomes, sys.stdout)
