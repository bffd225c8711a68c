"""Tests of the demo pair."""
