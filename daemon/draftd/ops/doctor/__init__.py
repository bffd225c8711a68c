"""`draftd doctor`: looks at everything that can be wrong on this machine, and says what to do."""
