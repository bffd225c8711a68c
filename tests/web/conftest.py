"""What the tests of the web side share."""

import pytest

from tests.web.raw_http import TRANSPORTS, Wire


@pytest.fixture(params=TRANSPORTS)
def wire(request: pytest.FixtureRequest) -> Wire:
    """Runs a test once over each transport."""
    return Wire(request.param)
