"""What the tests of workers share."""

from tests.workers.watching import bench  # noqa: F401 - pytest finds fixtures by their names
