"""Why a request is refused, so that a client can be told more than that it failed. Pure."""


class RefusedRequestError(Exception):
    """The request is at fault. `code` and `param` are those of OpenAI's errors."""

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
