"""What other programs need to use the daemon: OpenCode's configuration, and settings for other clients."""
