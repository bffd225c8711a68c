"""What caches have in common that drop what is old, and can go back as far as they need to."""


class Rewindable:
    """A cache that keeps what a rollback to its mark needs. `kind` names it in errors."""

    offset: int
    _mark: int | None = None

    @property
    def start(self) -> int:
        """The position in the text of the first row."""
        raise NotImplementedError

    @property
    def kind(self) -> str:
        """As in 'a window of 512'."""
        raise NotImplementedError

    def can_rewind(self, position: int) -> bool:
        """Whether all that the token at `position` may see is here."""
        raise NotImplementedError

    def mark(self) -> None:
        """From here on keep what is needed to come back to this position."""
        self._mark = self.offset

    def unmark(self) -> None:
        """Keep only what is needed to read on, and `MARGIN` tokens more."""
        self._mark = None

    def rewind(self, position: int) -> None:
        """Forget what was read from `position` on."""
        self.offset = position

    def is_trimmable(self) -> bool:
        """Whether any number of tokens can be taken back, which is what mlx_lm takes it for."""
        return not self.start

    def trim(self, n: int) -> int:
        """Take back `n` tokens; raise ValueError if what they stood on has been dropped."""
        position = self.offset - min(n, self.offset)
        if not self.can_rewind(position):
            raise ValueError(f"{self.kind} cannot go back from {self.offset} to {position}")
        taken = self.offset - position
        self.rewind(position)
        return taken
