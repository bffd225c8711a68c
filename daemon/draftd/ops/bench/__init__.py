"""`draftd bench`: what each draft length gives on this machine, beside no drafting."""
