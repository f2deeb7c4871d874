"""Mutation testing of the core: whatever is changed in its lines, a test notices, or a reason is written down."""
