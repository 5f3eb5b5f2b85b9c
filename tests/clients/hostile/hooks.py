"""Serializes bodies of JSON lines, which schemathesis does not know."""

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    values = value if isinstance(value, list) else [value]
    return "".join(json.dumps(one) + "\n" for one in values).encode()
