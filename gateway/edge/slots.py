"""What becomes of a client's field: it passes, it is dropped, or it is lifted out into a place of its own.

Plain integers, not an Enum: these are read some forty times a request, and reading an Enum member costs eight times as
much as reading a module's constant (CPython 3.11).
"""

from typing import Final

CLAIM: Final = -1
"""Dropped, and counted: nobody honest sends it."""
PASS: Final = 0
DROP: Final = 1
HOST: Final = 2
AUTHORIZATION: Final = 3
API_KEY: Final = 4
COOKIE: Final = 5
CONNECTION: Final = 6
CONTENT_LENGTH: Final = 7
TRANSFER_ENCODING: Final = 8
UPGRADE: Final = 9
EXPECT: Final = 10
TRACEPARENT: Final = 11
TRACESTATE: Final = 12
FORWARDED_FOR: Final = 13
FORWARDED_PROTO: Final = 14
FORWARDED_HOST: Final = 15
FORWARDED_PORT: Final = 16
REQUEST_ID: Final = 17
# From here on a field is read and passes up as well.
ORIGIN: Final = 18
SEC_FETCH_SITE: Final = 19
ACCEPT: Final = 20
REQUESTED_METHOD: Final = 21
REQUESTED_HEADERS: Final = 22
CONTENT_TYPE: Final = 23
USER_AGENT: Final = 24
ETAG: Final = 25
CONTENT_LOCATION: Final = 26
CONTENT_RANGE: Final = 27
MAX_FORWARDS: Final = 28
SERVER: Final = 29
COUNT: Final = 30

FIRST_THAT_PASSES: Final = ORIGIN
"""The first lifted place whose field goes up as well."""
